//! The server inside another program, without an async runtime: start, use, stop.
//!
//! `cargo run --release --example embed`

use billstream::client::Stub;
use billstream::proto::report::{CreateInvoiceRequest, ExportRequest, SummaryRequest};
use billstream::{Config, Server};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::MessageField;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(Config {
        db: dir.path().join("bills.db"),
        listen: vec!["127.0.0.1:0".to_owned()],
        ..Config::default()
    })?;
    println!("listening on {}", server.addr());

    let client = Stub::new(&server.addr().to_string());
    block_on(create(&client))?;
    let summary = client.get_summary(&SummaryRequest::new(), CallOption::default())?;
    println!("{} invoices, {} cents", summary.invoice_count, summary.totals[0].total_cents);
    block_on(export(&client))?;

    server.shutdown()?;
    Ok(())
}

/// Uploads three invoices: all of them, or none.
async fn create(client: &Stub) -> grpcio::Result<()> {
    let (mut requests, result) = client.bulk_create(CallOption::default())?;
    for i in 1..=3 {
        let request = CreateInvoiceRequest {
            invoice_id: format!("inv-{i}"),
            customer_id: "cust-1".to_owned(),
            total_amount_cents: 100 * i,
            currency: "EUR".to_owned(),
            issued_at: MessageField::some(Timestamp::now()),
            ..Default::default()
        };
        requests.send((request, WriteFlags::default())).await?;
    }
    requests.close().await?;
    println!("created {}", result.await?.created_count);
    Ok(())
}

async fn export(client: &Stub) -> grpcio::Result<()> {
    let mut invoices = client.export_invoices(&ExportRequest::new(), CallOption::default())?;
    while let Some(invoice) = invoices.next().await.transpose()? {
        println!("{} {} {}", invoice.sequence, invoice.invoice_id, invoice.total_amount_cents);
    }
    Ok(())
}
