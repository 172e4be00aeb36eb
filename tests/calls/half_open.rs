//! Calls that are opened, and whose message never comes.

use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::grpc::methods;
use billstream::proto::report::{ExportRequest, SummaryRequest};
use billstream::Config;
use grpcio::CallOption;

use crate::common::http2::*;
use crate::common::process::Process;
use crate::common::*;

const METHODS: [&str; 10] = [
    methods::GET_SUMMARY.name,
    methods::LIST_INVOICES.name,
    methods::GET_INVOICE.name,
    methods::EXPORT_EVENTS.name,
    methods::EXPORT_INVOICES.name,
    methods::EXPORT_INVOICE_BATCHES.name,
    methods::BULK_CREATE.name,
    methods::BULK_CREATE_BATCHES.name,
    methods::RECONCILE.name,
    methods::RECONCILE_BATCHES.name,
];
/// The first of them, whose client has one message to send.
const OF_ONE_REQUEST: usize = 6;
const CONNECTIONS: usize = 50;
const CALLS: usize = 10_000;
const ROWS: u64 = 10_000;

/// For calls that would wait for ever.
fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE / 2)
}

/// The median time of a GetSummary.
fn median_summary(client: &Stub) -> Duration {
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let start = Instant::now();
            client.get_summary(&SummaryRequest::new(), options()).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Opens a call and does not send its message.
fn half_open(addr: &str, method: &str) -> Http2 {
    let mut http2 = Http2::connect(addr);
    http2.open(1, method).unwrap();
    http2
}

/// The status that ends the first call of a connection.
fn status_of(http2: &mut Http2) -> u32 {
    let is_end = |frame: &Frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0;
    http2.receive_until(is_end).unwrap().grpc_status().unwrap()
}

#[test]
fn ten_thousand_of_them_hold_nobody_up() {
    let _alone = alone();
    let wait = ["--first-message-timeout-ms", "600000"];
    let mut server = Process::with_copy(&database(ROWS), &wait);
    let client = Stub::new(&server.addr);
    let (idle, idle_mib) = (median_summary(&client), server.rss_mib());
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Http2::connect(&server.addr)).collect();
    for call in 0..CALLS {
        let stream = 2 * (call / CONNECTIONS) as u32 + 1;
        let method = METHODS[call % METHODS.len()];
        connections[call % CONNECTIONS].open(stream, method).unwrap();
    }
    // Each connection answers this when it has read what was before it.
    for http2 in &mut connections {
        http2.send(&Frame::new(PING, 0, 0, [7; 8])).unwrap();
        http2.receive_until(|frame| frame.kind == PING && frame.flags & ACK != 0).unwrap();
    }
    let (beside, mib) = (median_summary(&client), server.rss_mib());
    let (rows, error) = collect(client.export_invoices(&ExportRequest::new(), options()).unwrap());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(rows.len(), ROWS as usize);
    drop(client);
    let stop = server.stop();
    println!(
        "{CALLS} half-open calls on {CONNECTIONS} connections: GetSummary {beside:?} at the median ({idle:?} \
         without them), {} MiB more, SIGTERM ends in {stop:?}",
        mib - idle_mib
    );
    assert!(beside < Duration::from_millis(20) + 10 * idle, "{beside:?}, and {idle:?} without");
    // The default drain is 10 s.
    assert!(stop < Duration::from_secs(8), "{stop:?}");
}

#[test]
fn each_is_ended_in_time_and_counted_and_holds_no_place() {
    let server = TestServer::start(Config {
        first_message_timeout_ms: 500,
        max_exports: 1,
        max_uploads: 1,
        max_reconciles: 1,
        ..Config::default()
    });
    let client = server.client();
    let mut calls: Vec<_> = METHODS
        .iter()
        .flat_map(|method| [method; 2])
        .map(|m| half_open(&server.addr(), m))
        .collect();
    upload(&client, [invoice("a", 1)]).unwrap();
    let (rows, error) = collect(client.export_invoices(&ExportRequest::new(), options()).unwrap());
    assert_eq!((rows.len(), error.is_none()), (1, true));
    assert_eq!(summary(&client).invoice_count, 1);
    let ends: Vec<_> = calls.iter_mut().map(status_of).collect();
    assert_eq!(ends, [DEADLINE_EXCEEDED; 2 * METHODS.len()]);
    assert_eq!(server.get().metrics().calls_without_message.get(), 2 * METHODS.len() as u64);
}

#[test]
fn the_log_names_some_of_them() {
    let server = Process::with_copy(&database(1000), &["--first-message-timeout-ms", "100"]);
    let mut calls: Vec<_> = (0..20).map(|_| half_open(&server.addr, METHODS[0])).collect();
    calls.iter_mut().for_each(|call| assert_eq!(status_of(call), DEADLINE_EXCEEDED));
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("first_message_timeout_ms")).count();
    assert!((1..20).contains(&lines), "{lines} lines: {log}");
}

#[test]
fn a_call_that_ends_without_its_message_is_a_fault_of_the_client() {
    let server = TestServer::start(Config::default());
    for (i, method) in METHODS.into_iter().enumerate() {
        let expected = if i < OF_ONE_REQUEST { INVALID_ARGUMENT } else { OK };
        let mut http2 = Http2::connect(&server.addr());
        let headers = literals(request_headers(method));
        http2.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, headers)).unwrap();
        assert_eq!(status_of(&mut http2), expected, "{method}");
    }
}

#[test]
fn a_second_message_is_not_read_where_there_is_one() {
    let server = TestServer::start(Config::default());
    for method in &METHODS[..OF_ONE_REQUEST] {
        let mut http2 = half_open(&server.addr(), method);
        http2.send(&Frame::new(DATA, 0, 1, [0; 10])).unwrap();
        // The id of an invoice is required.
        let expected = if *method == methods::GET_INVOICE.name { INVALID_ARGUMENT } else { OK };
        assert_eq!(status_of(&mut http2), expected, "{method}");
    }
}

const OK: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
