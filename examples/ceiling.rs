//! What the gRPC C core itself can do: a server of the same service and settings, whose answers are
//! constants. It reads nothing and keeps nothing; `benches/compare` measures it as a limit.
//!
//! `cargo run --release --example ceiling -- --listen 127.0.0.1:0`

use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;

use billstream::grpc::methods::{EXPORT_INVOICES, GET_SUMMARY};
use billstream::proto::report::{ExportRequest, Invoice, InvoiceStatus, Summary, SummaryRequest};
use billstream::server::{channel, SLOTS_PER_CQ};
use billstream::Config;
use clap::Parser;
use futures::future::poll_fn;
use futures::{Sink, SinkExt};
use grpcio::{
    EnvBuilder, GrpcSlice, Marshaller, Method, ServerBuilder, ServerCredentials,
    ServerStreamingSink, ServiceBuilder, WriteFlags,
};
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// The messages of an export that asks for all of them.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let config = Config::default();
    let env = Arc::new(EnvBuilder::new().cq_count(config.cq_threads).build());
    let row = GrpcSlice::from(invoice().write_to_bytes()?);
    let messages_a_flush = config.export_chunk_bytes.div_ceil(row.len());
    let service = ServiceBuilder::new()
        .add_unary_handler(&GET_SUMMARY, |ctx, _: SummaryRequest, sink| {
            // An error is a call that is over already.
            ctx.spawn(async { drop(sink.success(Summary::new()).await) });
        })
        .add_server_streaming_handler(&constant(), move |ctx, request: ExportRequest, sink| {
            let count = if request.max_rows > 0 { request.max_rows } else { args.rows };
            let row = row.clone();
            ctx.spawn(async move { drop(send(sink, row, count, messages_a_flush).await) });
        })
        .build();
    let mut server = ServerBuilder::new(Arc::clone(&env))
        .channel_args(channel(&env, &config).build_args())
        .requests_slot_per_cq(SLOTS_PER_CQ)
        .register_service(service)
        .build()?;
    let port = server.add_listening_port(&args.listen, ServerCredentials::insecure())?;
    server.start();
    let host = args.listen.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
    println!("listening on {host}:{port}");
    loop {
        std::thread::park();
    }
}

/// An invoice of about the size of those that `billstream generate` makes.
fn invoice() -> Invoice {
    Invoice {
        sequence: 500_000,
        invoice_id: "inv-0500000".to_owned(),
        customer_id: "cust-01234".to_owned(),
        total_amount_cents: 123_456,
        currency: "USD".to_owned(),
        status: InvoiceStatus::INVOICE_STATUS_OPEN.into(),
        issued_at: MessageField::some(Timestamp { seconds: 1_700_000_000, ..Default::default() }),
        memo: "a memo of some length".to_owned(),
        ..Invoice::new()
    }
}

/// ExportInvoices with a response that is encoded once for all.
fn constant() -> Method<ExportRequest, GrpcSlice> {
    Method {
        ty: EXPORT_INVOICES.ty,
        name: EXPORT_INVOICES.name,
        req_mar: Marshaller { ser: EXPORT_INVOICES.req_mar.ser, de: EXPORT_INVOICES.req_mar.de },
        resp_mar: Marshaller {
            ser: |row, buffer| {
                *buffer = row.clone();
                Ok(())
            },
            de: |_| unreachable!("a server receives no responses"),
        },
    }
}

/// Sends as an export does: with the buffer hint, and a flush at the end of each chunk.
async fn send(
    mut sink: ServerStreamingSink<GrpcSlice>,
    row: GrpcSlice,
    count: i64,
    messages_a_flush: usize,
) -> grpcio::Result<()> {
    let mut sent = 0;
    poll_fn(|cx| {
        while sent < count {
            ready!(Pin::new(&mut sink).poll_ready(cx))?;
            sent += 1;
            let is_flushed = sent % messages_a_flush as i64 == 0 || sent == count;
            let flags = WriteFlags::default().buffer_hint(!is_flushed);
            Pin::new(&mut sink).start_send((row.clone(), flags))?;
        }
        std::task::Poll::Ready(Ok::<(), grpcio::Error>(()))
    })
    .await?;
    sink.close().await
}
