//! A stop of the server with calls of every kind open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::grpc::methods::GET_SUMMARY;
use billstream::proto::report::{
    ExportRequest, ReconcileAck, ReconcileEvent, Summary, SummaryRequest,
};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{
    CallOption, ChannelBuilder, ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver,
    ClientUnaryReceiver, EnvBuilder, RpcStatusCode, WriteFlags,
};

use crate::common::process::Process;
use crate::common::*;
use crate::variable;

/// Dated summaries of a million rows on two threads: half a minute of them.
const QUERIES: usize = 250;

fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

/// What is open when the server is stopped.
struct Open {
    events: ClientDuplexSender<ReconcileEvent>,
    acks: ClientDuplexReceiver<ReconcileAck>,
    export: ClientSStreamReceiver<billstream::proto::report::Invoice>,
    queries: Vec<ClientUnaryReceiver<Summary>>,
}

impl Open {
    fn all(addr: &str) -> Open {
        let env = Arc::new(EnvBuilder::new().cq_count(1).build());
        let channel = || {
            ChannelBuilder::new(Arc::clone(&env))
                .http2_bdp_probe(false)
                .use_local_subchannel_pool(true)
                .connect(addr)
        };
        let client = Stub::with_channel(channel());
        let (mut events, mut acks) = client.reconcile(options()).unwrap();
        block_on(events.send((event("e", "nothing", 1), WriteFlags::default()))).unwrap();
        block_on(acks.next()).unwrap().unwrap();
        let mut export = client.export_invoices(&ExportRequest::new(), options()).unwrap();
        block_on(export.next()).unwrap().unwrap();
        let client = grpcio::Client::new(channel());
        let dated = SummaryRequest { issued_from: time(1), ..SummaryRequest::default() };
        let query = |_| client.unary_call_async(&GET_SUMMARY, &dated, options()).unwrap();
        let quick = || client.unary_call(&GET_SUMMARY, &SummaryRequest::new(), options()).unwrap();
        quick();
        let queries = (0..QUERIES).map(query).collect();
        // On a connection that stands calls are taken in their order.
        quick();
        Open { events, acks, export, queries }
    }

    /// Each ends with UNAVAILABLE; the export is cancelled, if its client has not come for the end.
    fn assert_ended(mut self) {
        let end = block_on(self.acks.next()).unwrap();
        assert_status(end, RpcStatusCode::UNAVAILABLE, "shutting down");
        drop(self.events);
        let (_, end) = collect(self.export);
        let end = status(Err::<(), _>(end.unwrap())).code();
        let ends = [RpcStatusCode::UNAVAILABLE, RpcStatusCode::CANCELLED];
        assert!(ends.contains(&end), "{end:?}");
        let mut interrupted = 0;
        for query in self.queries {
            match block_on(query) {
                Ok(_) => {}
                result => {
                    let code = status(result.map(|_: Summary| ())).code();
                    // A queue may have its limit.
                    let refused = RpcStatusCode::RESOURCE_EXHAUSTED;
                    assert!([RpcStatusCode::UNAVAILABLE, refused].contains(&code), "{code:?}");
                    interrupted += usize::from(code == RpcStatusCode::UNAVAILABLE);
                }
            }
        }
        assert!(interrupted > 0, "all queries were quick");
    }
}

#[test]
fn sigterm_waits_for_no_idle_stream_and_no_query() {
    let _alone = alone();
    let stops = variable("BILLSTREAM_TEST_STOPS", 3);
    let db: PathBuf = database(1_000_000);
    let mut times: Vec<Duration> = (0..stops)
        .map(|_| {
            let mut server = Process::with_copy(&db, &["--drain-timeout-ms", "600000"]);
            let open = Open::all(&server.addr);
            let took = server.stop();
            open.assert_ended();
            took
        })
        .collect();
    times.sort();
    println!(
        "{stops} stops with an idle Reconcile, a stalled export and {QUERIES} queries: {:?} at the median, {:?} at \
         the most",
        times[stops / 2],
        times[stops - 1]
    );
    assert!(times[stops - 1] < DEADLINE, "{times:?}");
}

/// The writer is held up for longer than a stop bears with a client that sends nothing.
#[test]
fn what_was_taken_is_acknowledged_before_the_end() {
    const EVENTS: usize = 100;
    let mut server = TestServer::start(Config { busy_timeout_ms: 60_000, ..Config::default() });
    let client = server.client();
    upload(&client, [invoice("a", 1_000_000)]).unwrap();
    let (mut events, acks) = client.reconcile(options()).unwrap();
    let (mut requests, idle) = client.bulk_create(options()).unwrap();
    let lock = server.sql();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let send = async {
        for i in 0..EVENTS {
            let event = event(&format!("e{i}"), "a", 1);
            events.send((event, WriteFlags::default())).await.unwrap();
        }
        requests.send((invoice("b", 1), WriteFlags::default())).await.unwrap();
    };
    block_on(send);
    eventually("both streams are open", || server.get().streams_open() == 2);
    let acks = std::thread::spawn(move || collect(acks));
    let stopping = std::thread::spawn(move || {
        server.stop();
        server
    });
    // By then the events have come, and nothing after them for as long.
    assert_status(block_on(idle), RpcStatusCode::UNAVAILABLE, "shutting down");
    std::thread::sleep(Duration::from_millis(200));
    lock.execute_batch("COMMIT").unwrap();
    let (acks, end) = acks.join().unwrap();
    // (grpcio's client drops a message that it has not given yet when a status that is an error comes.)
    assert!((EVENTS - 1..=EVENTS).contains(&acks.len()), "{} acks, {end:?}", acks.len());
    assert_status(Err::<(), _>(end.unwrap()), RpcStatusCode::UNAVAILABLE, "shutting down");
    let paid = "SELECT paid_cents FROM invoices WHERE invoice_id = 'a'";
    let server = stopping.join().unwrap();
    let paid: i64 = server.sql().query_row(paid, [], |row| row.get(0)).unwrap();
    assert_eq!(paid, EVENTS as i64);
}

#[test]
fn a_stream_in_progress_goes_on_and_an_idle_one_ends() {
    let mut server = TestServer::start(Config::default());
    let client = server.client();
    let (mut busy, result) = client.bulk_create(options()).unwrap();
    block_on(busy.send((invoice("a", 1), WriteFlags::default()))).unwrap();
    let (_sink, idle) = client.bulk_create(options()).unwrap();
    let (mut taken, idle_too) = client.bulk_create(options()).unwrap();
    block_on(taken.send((invoice("b", 1), WriteFlags::default()))).unwrap();
    eventually("both uploads are open", || server.get().streams_open() == 2);
    let stopping = std::thread::spawn(move || {
        server.stop();
        server
    });
    // The client of the first goes on until the others have ended.
    assert_status(block_on(idle), RpcStatusCode::UNAVAILABLE, "shutting down");
    let ended = std::thread::spawn(move || block_on(idle_too));
    let start = Instant::now();
    for i in 0.. {
        block_on(busy.send((invoice(&format!("a{i}"), 1), WriteFlags::default()))).unwrap();
        if ended.is_finished() {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "the idle one does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_status(ended.join().unwrap(), RpcStatusCode::UNAVAILABLE, "shutting down");
    block_on(busy.close()).unwrap();
    assert!(block_on(result).unwrap().created_count > 1);
    stopping.join().unwrap();
}
