//! Slow calls, and what they waited for.

use std::time::{Duration, Instant};

use billstream::grpc::methods::GET_SUMMARY;
use billstream::proto::report::{ExportRequest, SummaryRequest};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{Client, WriteFlags};
use log::Level;

use crate::client;
use crate::common::*;
use crate::records::{self, called, Line};

/// Lets so much time pass.
fn pass(time: Duration) {
    let start = Instant::now();
    eventually("time passes", || start.elapsed() >= time);
}

const LIMIT_MS: u64 = 300;
/// For which something is held up that makes a call slow.
const HELD: Duration = Duration::from_secs(1);

fn start() -> TestServer {
    records::keep();
    let (slow_call_ms, busy_timeout_ms) = (LIMIT_MS, DEADLINE.as_millis() as u64);
    TestServer::start(Config { slow_call_ms, busy_timeout_ms, ..Config::default() })
}

fn assert_waited_for_the_writer(line: &Line) {
    assert_eq!(line.level, Level::Warn, "{line:?}");
    assert!(line.text.starts_with("slow call, which waited most for the writer"), "{line:?}");
    assert!(line.text.ends_with("call ended: OK"), "{line:?}");
    assert!(line.number("writer_ms") > LIMIT_MS, "{line:?}");
    assert!(line.number("ms") > line.number("client_ms") + LIMIT_MS, "{line:?}");
}

#[test]
fn an_upload_and_a_reconcile_that_waited_for_the_writer_are_told_of() {
    let server = start();
    let client = server.client();
    upload(&client, [invoice("a", 1_000)]).unwrap();
    let lock = server.sql();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (mut requests, result) = client.bulk_create(called("slow-upload")).unwrap();
    let (mut events, mut acks) = client.reconcile(called("slow-reconcile")).unwrap();
    block_on(async {
        for request in [invoice("b", 1), commit("batch", 1)] {
            requests.send((request, WriteFlags::default())).await.unwrap();
        }
        half_close(&mut requests).await;
        // This client sends nothing while it waits for its answer, and is not what is waited for.
        events.send((event("1", "a", 1), WriteFlags::default())).await.unwrap();
    });
    eventually("both are open", || server.get().streams_open() == 2);
    pass(HELD);
    lock.execute_batch("COMMIT").unwrap();
    block_on(result).unwrap();
    block_on(acks.next()).unwrap().unwrap();
    block_on(half_close(&mut events));
    assert!(block_on(acks.next()).is_none());
    assert_waited_for_the_writer(&records::of("slow-upload"));
    assert_waited_for_the_writer(&records::of("slow-reconcile"));
}

#[test]
fn a_stream_is_not_slow_that_waited_for_its_client() {
    records::keep();
    let config = Config { slow_call_ms: 1_000, ..Config::default() };
    let server = TestServer::with_copy(&database(20_000), config);
    // Their streams end with them.
    let (slow, client) = (server.slow_client(), server.client());
    let mut rows = slow.export_invoices(&ExportRequest::new(), called("stalled")).unwrap();
    block_on(rows.next()).unwrap().unwrap();
    let (mut events, mut acks) = client.reconcile(called("idle")).unwrap();
    block_on(events.send((event("1", "nothing", 1), WriteFlags::default()))).unwrap();
    block_on(acks.next()).unwrap().unwrap();
    let (mut requests, result) = client.bulk_create(called("silent")).unwrap();
    block_on(requests.send((invoice("a", 1), WriteFlags::default()))).unwrap();
    pass(Duration::from_millis(1_500));
    assert_eq!(collect(rows).0.len(), 20_000 - 1);
    block_on(half_close(&mut events));
    assert!(block_on(acks.next()).is_none());
    block_on(half_close(&mut requests));
    block_on(result).unwrap();
    for id in ["stalled", "idle", "silent"] {
        let line = records::of(id);
        assert_eq!((line.level, line.text.as_str()), (Level::Debug, "call ended: OK"), "{line:?}");
        assert!(line.number("ms") > 1_000 && line.number("client_ms") > 1_000, "{line:?}");
    }
}

/// Summaries that read the whole table, all at once.
fn queries(client: &Client, ids: &[String]) {
    let dated = SummaryRequest { issued_from: time(1), ..SummaryRequest::default() };
    let query = |id: &String| client.unary_call_async(&GET_SUMMARY, &dated, called(id)).unwrap();
    for result in ids.iter().map(query).collect::<Vec<_>>() {
        block_on(result).unwrap();
    }
}

#[test]
fn when_all_are_slow_ten_a_second_are_told_of_and_the_others_counted() {
    records::keep();
    let config = Config { slow_call_ms: 1, unary_workers: 1, ..Config::default() };
    let server = TestServer::with_copy(&database(100_000), config);
    let ids: Vec<_> = (0..40).map(|i| format!("query-{i}")).collect();
    let client = client(&server.addr());
    let start = Instant::now();
    queries(&client, &ids);
    let most = 11 + start.elapsed().as_millis() / 100;
    let lines: Vec<_> = ids.iter().map(|id| records::of(id)).collect();
    let told: Vec<_> = lines.iter().filter(|line| line.level == Level::Warn).collect();
    assert!((10..=most).contains(&(told.len() as u128)), "{} of {most}", told.len());
    let first = told.iter().min_by_key(|line| line.number("ms")).unwrap();
    assert!(first.text.contains("most for the database"), "{first:?}");
    let last = lines.iter().max_by_key(|line| line.number("ms")).unwrap();
    assert!(last.number("queue_ms") > last.number("database_ms"), "{last:?}");
    let others = lines.len() - told.len();
    let mut number = 0;
    eventually("the others are counted", || {
        number += 1;
        let id = format!("query-after-{number}");
        queries(&client, std::slice::from_ref(&id));
        records::of(&id).text.contains(" others were slow")
    });
    assert!(others > 0, "all {} were told of", lines.len());
}
