//! Another process that has the database locked: what is refused says so, and what was given up
//! takes the place of nothing else.

use std::thread;

use billstream::client::Stub;
use billstream::proto::report::SummaryRequest;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{RpcStatusCode, WriteFlags};
use rusqlite::Connection;

use crate::support::{
    assert_sound, code, commit, commit_required, options, payment, send_rows, upload, wait_for,
    Local, Upload, DEADLINE,
};

/// Takes the lock of writers, as a shell with an open transaction has it.
fn lock(local: &Local) -> Connection {
    let conn = Connection::open(&local.db).unwrap();
    conn.busy_timeout(DEADLINE).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn
}

#[test]
fn a_database_that_stays_locked_is_unavailable() {
    let local = Local::start(|config| config.busy_timeout_ms = 20);
    let client = local.client();
    upload(&client, "first", 3, None).unwrap();
    let locked = lock(&local);
    thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let client = &client;
            scope.spawn(move || {
                let refused = upload(client, name, 3, Some(name)).unwrap_err();
                assert_eq!(code(&refused), Some(RpcStatusCode::UNAVAILABLE), "{refused}");
            });
            scope.spawn(move || {
                let (mut events, mut acks) = client.reconcile(options()).unwrap();
                let event = payment(format!("event-{name}"), "first", 0, 1);
                let refused = block_on(async {
                    events.send((event, WriteFlags::default())).await.unwrap();
                    acks.next().await.unwrap().unwrap_err()
                });
                assert_eq!(code(&refused), Some(RpcStatusCode::UNAVAILABLE), "{refused}");
            });
        }
    });
    drop(locked);
    upload(&client, "a", 3, Some("a")).unwrap();
    local.stop_and(assert_sound);
}

/// An upload with its commit, up to its end. The calls behind it on the same connection are answered
/// after the server has read it.
fn complete(client: &Stub, name: &str) -> Upload {
    let (mut requests, result) = client.bulk_create(commit_required()).unwrap();
    block_on(async {
        send_rows(&mut requests, name, 0..3).await.unwrap();
        requests.send((commit(name, 3), WriteFlags::default())).await.unwrap();
        requests.close().await.unwrap();
    });
    for _ in 0..10 {
        client.get_summary(&SummaryRequest::new(), options()).unwrap();
    }
    (requests, result)
}

#[test]
fn uploads_that_were_cancelled_behind_a_lock_hold_no_place() {
    let local = Local::start(|config| {
        config.busy_timeout_ms = DEADLINE.as_millis() as u64;
        config.max_uploads = 4;
        // One client may take them all.
        (config.host_share_percent, config.connection_share_percent) = (100, 100);
        config.max_reconciles = 1;
    });
    let client = local.client();
    upload(&client, "first", 3, None).unwrap();
    let locked = lock(&local);
    for round in 0..4 {
        let given_up: Vec<_> =
            (0..4).map(|i| complete(&client, &format!("given-up-{round}-{i}"))).collect();
        drop(given_up);
        wait_for("the calls are over", || local.server.streams_open() == 0);
    }
    let (_requests, result) = complete(&client, "lawful");
    drop(locked);
    assert_eq!(block_on(result).unwrap().created_count, 3);
    local.stop_and(|conn| {
        assert_sound(conn);
        let customers = crate::support::rows_by_customer(conn);
        assert_eq!(customers.len(), 2, "{customers:?}");
    });
}
