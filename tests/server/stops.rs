//! Stops inside executors and panics, and what they tell.

use std::panic::{catch_unwind, AssertUnwindSafe};

use billstream::proto::report::SummaryRequest;
use billstream::{Config, Server};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, RpcStatusCode, WriteFlags};

use crate::common::*;
use crate::config;

#[test]
fn a_server_starts_and_stops_inside_an_executor() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = block_on(async { Server::start(config(dir.path()))?.shutdown() }).unwrap();
    assert!(stopped.is_over);
    assert_eq!((stopped.drained, stopped.cancelled), (0, 0));
}

#[test]
fn dropped_by_a_panic_inside_an_executor_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        block_on(async {
            let server = Server::start(config(dir.path())).unwrap();
            assert_eq!(server.addresses().len(), 2, "this is to panic");
        })
    }));
    assert!(panicked.is_err());
    // The database is free already.
    Server::start(config(dir.path())).unwrap().shutdown().unwrap();
}

#[test]
fn a_stop_tells_what_it_drained_and_cancelled() {
    let mut server = TestServer::start(Config { drain_timeout_ms: 600_000, ..Config::default() });
    let client = server.client();
    let options = || CallOption::default().timeout(DEADLINE);
    // Before the stop, and so not of it.
    client.get_summary(&SummaryRequest::new(), options()).unwrap();
    let (mut events, mut acks) = client.reconcile(options()).unwrap();
    block_on(events.send((event("e", "nothing", 1), WriteFlags::default()))).unwrap();
    block_on(acks.next()).unwrap().unwrap();
    let (mut requests, result) = client.bulk_create(options()).unwrap();
    block_on(requests.send((invoice("a", 1), WriteFlags::default()))).unwrap();
    eventually("both streams are open", || server.get().streams_open() == 2);
    let server = server.server.take().unwrap();
    let stopping = std::thread::spawn(move || server.shutdown());
    // The upload goes on until the stream that does nothing has ended, and then ends well.
    let mut idle = std::thread::spawn(move || (block_on(acks.next()), events));
    let mut sent = 0;
    idle = loop {
        if idle.is_finished() {
            break idle;
        }
        sent += 1;
        let request = invoice(&format!("a{sent}"), 1);
        block_on(requests.send((request, WriteFlags::default()))).unwrap();
    };
    assert_status(idle.join().unwrap().0.unwrap(), RpcStatusCode::UNAVAILABLE, "shutting down");
    block_on(requests.close()).unwrap();
    assert_eq!(block_on(result).unwrap().created_count, sent + 1);
    let stopped = stopping.join().unwrap().unwrap();
    assert_eq!((stopped.drained, stopped.cancelled, stopped.rolled_back), (1, 1, 0));
    assert!(stopped.is_over);
    let told = "1 open calls went on to their end, 1 were ended, 0 of them uploads";
    assert!(stopped.to_string().contains(told), "{stopped}");
}
