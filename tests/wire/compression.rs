//! Batches in gzip, for clients that ask for them where the server has it on.

use std::time::Instant;

use billstream::client::Stub;
use billstream::proto::report::ExportRequest;
use billstream::Config;
use grpcio::{CallOption, MetadataBuilder, RpcStatusCode};

use crate::common::http2::*;
use crate::common::*;

const HEADER: &str = "billstream-compression";
const BATCHES: &str = "/billing.v1.ReportService/ExportInvoiceBatches";
const ROWS: &str = "/billing.v1.ReportService/ExportInvoices";

fn server(export_compression_level: usize) -> TestServer {
    let config = Config { export_compression_level, ..Config::default() };
    TestServer::with_copy(&database(20_000), config)
}

/// Whether the first message is compressed: the first byte of its frame says so.
fn is_compressed(server: &TestServer, path: &str, header: Option<&str>) -> bool {
    let mut http2 = Http2::connect(&server.addr());
    let headers = request_headers(path).into_iter().chain(header.map(|value| (HEADER, value)));
    http2.send(&Frame::new(HEADERS, END_HEADERS, 1, literals(headers))).unwrap();
    http2.send(&Frame::new(DATA, END_STREAM, 1, [0; 5])).unwrap();
    let first = http2.receive_until(|frame| frame.kind == DATA && frame.stream == 1).unwrap();
    first.payload[0] == 1
}

fn asking(value: &str) -> CallOption {
    let mut headers = MetadataBuilder::new();
    headers.add_str(HEADER, value).unwrap();
    CallOption::default().headers(headers.build())
}

fn rows(client: &Stub, options: CallOption) -> Vec<i64> {
    let batches = client.export_invoice_batches(&ExportRequest::new(), options).unwrap();
    let (batches, error) = collect(batches);
    assert!(error.is_none(), "{error:?}");
    batches.iter().flat_map(|batch| sequences(&batch.invoices)).collect()
}

#[test]
fn batches_are_compressed_for_who_asks_where_it_is_on() {
    let (mut on, mut off) = (server(6), server(0));
    assert!(is_compressed(&on, BATCHES, Some("gzip")));
    assert!(!is_compressed(&on, BATCHES, None));
    assert!(!is_compressed(&on, ROWS, Some("gzip")));
    assert!(!is_compressed(&off, BATCHES, Some("gzip")));
    let all: Vec<i64> = (1..=20_000).collect();
    for server in [&on, &off] {
        let client = server.client();
        assert_eq!(rows(&client, asking("gzip")), all);
        let wrong = client.export_invoice_batches(&ExportRequest::new(), asking("zip"));
        let (_, error) = collect(wrong.unwrap());
        assert_status::<()>(Err(error.unwrap()), RpcStatusCode::INVALID_ARGUMENT, HEADER);
    }
    on.stop();
    off.stop();
}

/// The bytes of an export on the wire.
fn bytes(server: &TestServer, header: Option<&str>) -> usize {
    let mut http2 = Http2::connect_with_window(&server.addr(), 1 << 30);
    let headers = request_headers(BATCHES).into_iter().chain(header.map(|value| (HEADER, value)));
    http2.send(&Frame::new(HEADERS, END_HEADERS, 1, literals(headers))).unwrap();
    http2.send(&Frame::new(DATA, END_STREAM, 1, [0; 5])).unwrap();
    let mut bytes = 0;
    loop {
        let frame = http2.receive_until(|frame| frame.stream == 1).unwrap();
        match frame.kind {
            DATA => bytes += frame.payload.len(),
            _ if frame.flags & END_STREAM != 0 => return bytes,
            _ => {}
        }
    }
}

/// Prints the ratio and the price of each level: see docs/performance.md.
#[test]
fn what_compression_costs() {
    let _alone = alone();
    for level in [0, 1, 6, 9] {
        let mut server = server(level);
        bytes(&server, Some("gzip"));
        let start = Instant::now();
        let sent = (0..5).map(|_| bytes(&server, Some("gzip"))).sum::<usize>() / 5;
        let took = start.elapsed() / 5;
        println!("level {level}: {sent} bytes, {took:.1?} for 20,000 invoices");
        assert!(level == 0 || sent < 1_000_000, "level {level}: {sent} bytes");
        server.stop();
    }
}
