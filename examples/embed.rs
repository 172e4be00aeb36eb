//! The server inside another program: no async runtime, no port. `cargo run --release --example embed`

#[rustfmt::skip]
use billstream::proto::report::{CreateInvoiceRequest, ExportRequest, ReconcileEvent, SummaryRequest};
use billstream::protobuf::well_known_types::timestamp::Timestamp;
use billstream::{Config, Server};

#[rustfmt::skip]
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
    let server = Server::builder(config).without_listeners().start()?;
    let (client, now) = (server.local(), Some(Timestamp::now()));

    let mut upload = client.upload()?;
    for i in 1..=3 {
        let (invoice_id, customer_id) = (format!("inv-{i}"), "cust-1".to_owned());
        upload.send(&CreateInvoiceRequest {
            invoice_id, customer_id, total_amount_cents: 100 * i, currency: "EUR".to_owned(),
            issued_at: now.clone().into(), ..Default::default()
        })?;
    }
    println!("created {}", upload.commit("batch-1")?.created_count);

    let (events, acks) = client.reconcile().split();
    let (event_id, invoice_id) = ("event-1".to_owned(), "inv-1".to_owned());
    events.send(ReconcileEvent {
        event_id, invoice_id, amount_cents: 100, currency: "EUR".to_owned(), received_at: now.into(), ..Default::default()
    })?;
    events.finish();
    acks.flatten().flatten().for_each(|ack| println!("{} {:?}", ack.event_id, ack.outcome));

    for invoices in client.export(&ExportRequest::default()) {
        invoices?.iter().for_each(|invoice| println!("{} {}", invoice.invoice_id, invoice.paid_cents));
    }
    println!("{} cents in all", client.summary(&SummaryRequest::default())?.totals[0].total_cents);
    println!("{}", server.shutdown()?);
    Ok(())
}
