//! A bounded stop.

use std::time::Instant;

use billstream::proto::report::ExportRequest;
use billstream::{Config, Error, Server};
use futures::executor::block_on;
use futures::StreamExt;
use grpcio::{CallOption, RpcStatusCode};

use crate::common::*;

/// Longer than a test may take on a host that is busy: a stop that waits for it is seen.
const LONG_DRAIN_MS: u64 = 600_000;

#[test]
fn a_stop_is_on_time_with_a_stalled_export_open() {
    let config = Config { drain_timeout_ms: LONG_DRAIN_MS, ..Config::default() };
    let mut server = TestServer::with_copy(&database(100_000), config);
    let client = server.slow_client();
    let mut export = client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    block_on(export.next()).unwrap().unwrap();
    let start = Instant::now();
    server.stop();
    let took = start.elapsed();
    println!("stopped after {took:?}");
    assert!(took < DEADLINE, "{took:?}");
    let (_, error) = collect(export);
    assert!(matches!(error, Some(grpcio::Error::RpcFailure(_))), "{error:?}");
}

#[test]
fn an_idle_server_stops_at_once_and_can_be_started_again() {
    let config = Config { drain_timeout_ms: LONG_DRAIN_MS, ..Config::default() };
    let mut server = TestServer::start(config);
    upload(&server.client(), [invoice("a", 1)]).unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        server.stop();
        assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
        server.server = Some(Server::start(server.config.clone()).unwrap());
        assert_eq!(summary(&server.client()).invoice_count, 1);
    }
    server.stop();
    for left in ["bills.db-wal", "bills.db-shm"] {
        assert!(!server.dir.path().join(left).exists(), "{left}: all is in the database file");
    }
}

#[test]
fn threads_do_not_outlive_their_server() {
    let _alone = alone();
    let threads = || {
        std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
            let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| {
                name.starts_with("billstream-cq") || name.starts_with("billstream-exp")
            })
        })
    };
    let mut server =
        TestServer::start(Config { cq_threads: 3, export_workers: 5, ..Config::default() });
    let during = threads().count();
    assert!(during >= 8, "{during}");
    server.stop();
    eventually("the threads of this server are gone", || threads().count() <= during - 8);
}

#[test]
fn a_call_to_a_stopped_server_is_unavailable() {
    let mut server = TestServer::start(Config::default());
    let client = server.client();
    summary(&client);
    server.stop();
    let call = client.get_summary(&Default::default(), CallOption::default());
    assert_eq!(status(call).code(), RpcStatusCode::UNAVAILABLE);
}

#[test]
fn a_database_has_one_server() {
    let server = TestServer::start(Config::default());
    let second = Server::start(server.config.clone()).err().unwrap();
    assert!(matches!(second, Error::Unusable(_)), "{second:?}");
    let told = format!("another server is serving it on {}", server.addr());
    assert!(second.to_string().contains(&told), "{second}");
    // The first one has kept its own locks.
    upload(&server.client(), [invoice("a", 1)]).unwrap();
}

#[test]
fn a_taken_port_is_told() {
    let server = TestServer::start(Config::default());
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("other.db");
    let second = Server::start(Config { listen: vec![server.addr()], db, ..Config::default() });
    let error = second.err().unwrap();
    assert!(error.to_string().contains("Address already in use"), "{error}");
}
