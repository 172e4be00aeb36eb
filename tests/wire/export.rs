//! ExportInvoices and ExportInvoiceBatches.

use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, Invoice, InvoiceStatus};
use billstream::Config;
use futures::executor::block_on;
use futures::StreamExt;
use grpcio::{CallOption, RpcStatusCode};

use crate::common::*;

fn rows(client: &Stub, request: &ExportRequest) -> Vec<Invoice> {
    let (rows, error) = collect(client.export_invoices(request, CallOption::default()).unwrap());
    assert!(error.is_none(), "{error:?}");
    rows
}

fn batched(client: &Stub, request: &ExportRequest) -> Vec<Invoice> {
    let stream = client.export_invoice_batches(request, CallOption::default()).unwrap();
    let (batches, error) = collect(stream);
    assert!(error.is_none(), "{error:?}");
    assert!(batches.iter().all(|batch| !batch.invoices.is_empty()));
    batches.into_iter().flat_map(|batch| batch.invoices).collect()
}

#[test]
fn both_exports_give_every_invoice_in_order() {
    let server = TestServer::with_copy(&database(100_000), Config::default());
    let client = server.client();
    let all = rows(&client, &ExportRequest::new());
    assert_eq!(sequences(&all), (1..=100_000).collect::<Vec<_>>());
    assert_eq!(all[41].invoice_id, "inv-00000042");
    assert!(all == batched(&client, &ExportRequest::new()), "batches hold the same invoices");
}

#[test]
fn a_filter_a_cursor_and_a_limit_narrow_it() {
    let server = TestServer::with_copy(&database(10_000), Config::default());
    server.sql().execute("UPDATE invoices SET status = 3 WHERE sequence % 7 = 0", []).unwrap();
    let client = server.client();
    let day = |i: i64| time(946_684_800 + i * 864);
    let paid = vec![InvoiceStatus::INVOICE_STATUS_PAID.into()];
    let customer_id = "cust-021".to_owned();
    let request = ExportRequest {
        issued_from: day(100),
        issued_until: day(9000),
        after_sequence: 500,
        max_rows: 3,
        ..ExportRequest::default()
    };
    let expect = |request: &ExportRequest, matches: &dyn Fn(i64) -> bool| {
        let expected: Vec<_> = (501..9000).filter(|i| matches(*i)).take(3).collect();
        assert_eq!(sequences(&rows(&client, request)), expected);
        assert_eq!(sequences(&batched(&client, request)), expected);
    };
    expect(&request, &|_| true);
    let paid_only = ExportRequest { statuses: paid, ..request.clone() };
    expect(&paid_only, &|i| i % 7 == 0);
    expect(&ExportRequest { customer_id: customer_id.clone(), ..request }, &|i| i % 100 == 21);
    expect(&ExportRequest { customer_id, ..paid_only }, &|i| i % 100 == 21 && i % 7 == 0);
}

#[test]
fn an_empty_set_ends_ok() {
    let server = TestServer::start(Config::default());
    assert!(rows(&server.client(), &ExportRequest::new()).is_empty());
    assert!(batched(&server.client(), &ExportRequest::new()).is_empty());
}

#[test]
fn malformed_fields_are_named() {
    let server = TestServer::start(Config::default());
    let request = ExportRequest { after_sequence: -1, max_rows: -2, ..ExportRequest::default() };
    let client = server.client();
    let stream = client.export_invoices(&request, CallOption::default()).unwrap();
    let error = Err::<(), _>(collect(stream).1.unwrap());
    let status = assert_status(error, RpcStatusCode::INVALID_ARGUMENT, "after_sequence: -1");
    assert!(status.message().contains("max_rows: -2"), "{status:?}");
}

#[test]
fn the_first_row_comes_quickly() {
    let _alone = alone();
    let server = TestServer::with_copy(&database(100_000), Config::default());
    let client = server.client();
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let mut stream =
                client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
            block_on(stream.next()).unwrap().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    let start = Instant::now();
    rows(&client, &ExportRequest::new());
    let whole = start.elapsed();
    println!("first row: median {:?}, slowest {:?}; all rows {whole:?}", times[10], times[20]);
    // A busy host makes both slow.
    assert!(times[10] < whole / 2, "{times:?}, and {whole:?} for all");
}

#[test]
fn a_client_that_does_not_read_holds_the_scan() {
    let server = TestServer::with_copy(&database(100_000), Config::default());
    let client = server.slow_client();
    let mut stream = client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    block_on(stream.next()).unwrap().unwrap();
    let metrics = server.get().metrics();
    eventually("the scan is parked", || metrics.scans_parked.get() > 0);
    assert_eq!(server.get().connections_in_use(), 0);
    // What the client's window, the write buffer of gRPC, its reads (64 KiB each) and the documented buffer
    // hold, in rows of at least 70 bytes.
    let bound = (3 * 64 * 1024 + server.config.export_memory_bytes()) / 70;
    let scanned = metrics.rows_scanned.get();
    assert!(scanned < bound as u64, "{scanned} rows were read, over {bound}");
    // And it goes on where it stopped.
    let (rest, error) = collect(stream);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(sequences(&rest), (2..=100_000).collect::<Vec<_>>());
}

#[test]
fn a_client_that_goes_away_gives_the_connection_back() {
    let _alone = alone();
    let server = TestServer::with_copy(&database(1_000_000), Config::default());
    let client = server.client();
    let mut slowest = Duration::ZERO;
    let tries = std::env::var("BILLSTREAM_TEST_ABANDONED").map_or(100, |n| n.parse().unwrap());
    for i in 0..tries {
        let mut stream =
            client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
        // A different moment in the export each time.
        block_on(
            (&mut stream).take(1 + i * 37 % 5000).for_each(|row| async { drop(row.unwrap()) }),
        );
        drop(stream);
        let gone = Instant::now();
        eventually("the connection is back", || {
            server.get().connections_in_use() == 0 && server.get().streams_open() == 0
        });
        slowest = slowest.max(gone.elapsed());
    }
    println!("{tries} of {tries} gave it back, the slowest within {slowest:?}");
}

#[test]
fn a_deadline_ends_a_scan_that_finds_nothing() {
    let server = TestServer::with_copy(&database(1_000_000), Config::default());
    let request = ExportRequest {
        statuses: vec![InvoiceStatus::INVOICE_STATUS_VOID.into()],
        ..ExportRequest::default()
    };
    let client = server.client();
    let options = CallOption::default().timeout(Duration::from_millis(50));
    let (rows, error) = collect(client.export_invoices(&request, options).unwrap());
    assert!(rows.is_empty());
    assert_eq!(status(Err::<(), _>(error.unwrap())).code(), RpcStatusCode::DEADLINE_EXCEEDED);
    eventually("the connection is back", || server.get().connections_in_use() == 0);
}

#[test]
fn the_set_is_fixed_at_the_start() {
    let server = TestServer::with_copy(&database(100_000), Config::default());
    let client = server.slow_client();
    let mut stream = client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    let first = block_on(stream.next()).unwrap().unwrap();
    upload(&client, [invoice("new", 1)]).unwrap();
    let (rest, error) = collect(stream);
    assert!(error.is_none(), "{error:?}");
    assert_eq!((first.sequence, rest.len(), rest.last().unwrap().sequence), (1, 99_999, 100_000));
}

#[test]
fn a_consumer_that_stalls_is_ended_with_its_cursor() {
    let config = Config { stall_timeout_ms: 1000, ..Config::default() };
    let server = TestServer::with_copy(&database(100_000), config);
    let client = server.slow_client();
    let mut stream = client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    let first = block_on(stream.next()).unwrap().unwrap();
    let metrics = server.get().metrics();
    eventually("the scan is parked", || metrics.scans_parked.get() > 0);
    // Time is what this limit is about. The status is behind what gRPC holds already.
    std::thread::sleep(Duration::from_millis(1500));
    let (mut got, error) = collect(stream);
    got.insert(0, first);
    let status = assert_status(
        Err::<(), _>(error.unwrap()),
        RpcStatusCode::DEADLINE_EXCEEDED,
        "stall_timeout_ms",
    );
    let cursor: i64 = status.message().rsplit('=').next().unwrap().parse().unwrap();
    // grpcio's client drops a message that arrives together with an error; the interop test holds
    // other clients to the exact cursor.
    let received = got.last().unwrap().sequence;
    assert!((received..=received + 1).contains(&cursor), "{received} {status:?}");
    let resume = ExportRequest { after_sequence: received, ..ExportRequest::default() };
    let rest = rows(&client, &resume);
    got.extend(rest);
    assert_eq!(sequences(&got), (1..=100_000).collect::<Vec<_>>());
}

#[test]
fn an_old_stream_is_ended_with_its_cursor() {
    let config = Config { max_stream_age_ms: 100, ..Config::default() };
    let server = TestServer::with_copy(&database(100_000), config);
    let client = server.slow_client();
    let (mut cursor, mut got, mut calls) = (0, Vec::new(), 0);
    loop {
        calls += 1;
        let request = ExportRequest { after_sequence: cursor, ..ExportRequest::default() };
        let mut stream = client.export_invoices(&request, CallOption::default()).unwrap();
        // Slow enough to grow old, and never stalled.
        let (rows, error) = block_on(async {
            let mut rows = Vec::new();
            while let Some(row) = stream.next().await {
                match row {
                    Ok(row) => rows.push(row),
                    Err(error) => return (rows, Some(error)),
                }
                if rows.len() % 200 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            (rows, None)
        });
        got.extend(sequences(&rows));
        let Some(error) = error else { break };
        let ended = RpcStatusCode::DEADLINE_EXCEEDED;
        assert_status(Err::<(), _>(error), ended, "max_stream_age_ms");
        cursor = *got.last().unwrap();
    }
    assert!(calls > 1);
    assert_eq!(got, (1..=100_000).collect::<Vec<_>>());
}
