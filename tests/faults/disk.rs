//! A full disk: writes are UNAVAILABLE, reads go on, nothing acknowledged is lost, and when there is
//! room writes work again. The disk is a small tmpfs, which only root can mount.

use std::fs;
use std::path::PathBuf;

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, ReconcileAck, SummaryRequest};
use billstream::{Config, Server};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{RpcStatusCode, WriteFlags};

use crate::disks::SmallDisk;
use crate::support::{assert_sound, code, open, options, payment, rows_by_customer, upload, Local};

const MIB: usize = 1 << 20;

fn config(db: PathBuf) -> Config {
    Config {
        db,
        listen: vec!["127.0.0.1:0".to_owned()],
        // Checkpoints are to meet the full disk too.
        wal_limit_bytes: MIB as u64,
        ..Config::default()
    }
}

/// Uploads batches of `rows` until one fails, and returns how many were acknowledged.
fn upload_until_refused(client: &Stub, name: &str, rows: usize) -> usize {
    for i in 0.. {
        let batch = format!("{name}-{i}");
        match upload(client, &batch, rows, Some(&batch)) {
            Ok(result) => assert_eq!(result.created_count, rows as i64),
            Err(error) => {
                assert_eq!(code(&error), Some(RpcStatusCode::UNAVAILABLE), "{error}");
                return i;
            }
        }
    }
    unreachable!("the disk is never full")
}

fn reconcile_one(client: &Stub, event_id: &str) -> grpcio::Result<ReconcileAck> {
    let (mut events, mut acks) = client.reconcile(options())?;
    let event = payment(event_id.to_owned(), "first", 0, 1);
    block_on(async {
        events.send((event, WriteFlags::default())).await?;
        events.close().await?;
        acks.next().await.expect("an acknowledgement or an error")
    })
}

/// Reads in both ways, and holds them equal.
fn count_rows(client: &Stub) -> i64 {
    let summary = client.get_summary(&SummaryRequest::new(), options()).unwrap();
    let mut batches = client.export_invoice_batches(&ExportRequest::new(), options()).unwrap();
    let mut exported = 0;
    while let Some(batch) = block_on(batches.next()) {
        exported += batch.unwrap().invoices.len() as i64;
    }
    assert_eq!(summary.invoice_count, exported);
    exported
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    const ROWS: usize = 400;
    let Some(disk) = SmallDisk::mount(16 * MIB) else { return };
    let db = disk.path().join("bills.db");
    let server = Server::start(config(db.clone())).unwrap();
    let client = Stub::new(&server.addr().to_string());
    upload(&client, "first", 10, None).unwrap();
    let ballast = disk.fill("ballast", 6 * MIB);

    let names = ["a", "b", "c"];
    let upload = |name: &str| upload_until_refused(&client, name, ROWS);
    let acknowledged: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| upload(name))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let batches: usize = acknowledged.iter().sum();
    assert!(batches > 0, "the disk was full before the first upload");
    println!("full disk: UNAVAILABLE after {batches} uploads of {ROWS}");
    disk.fill("rest", 16 * MIB);
    for _ in 0..10 {
        assert_eq!(upload_until_refused(&client, "d", ROWS), 0);
        assert_eq!(count_rows(&client), (10 + batches * ROWS) as i64);
    }
    // A payment is small: it fits where the log has been copied into the file and begins anew.
    let payment = reconcile_one(&client, "event");
    let is_applied = payment.is_ok();
    if let Err(refused) = payment {
        assert_eq!(code(&refused), Some(RpcStatusCode::UNAVAILABLE), "{refused}");
    }

    // A stop on a full disk loses nothing either.
    server.shutdown().unwrap();
    fs::remove_file(ballast).unwrap();
    let server = Server::start(config(db.clone())).unwrap();
    let client = Stub::new(&server.addr().to_string());
    assert_eq!(count_rows(&client), (10 + batches * ROWS) as i64);
    retry(&client, &names, &acknowledged, ROWS);
    assert_eq!(reconcile_one(&client, "event").unwrap().duplicate, is_applied);
    server.shutdown().unwrap();

    let conn = open(&db);
    assert_sound(&conn);
    let stored = rows_by_customer(&conn);
    assert!(stored.iter().all(|(name, rows)| *rows == if name == "first" { 10 } else { ROWS }));
    assert_eq!(stored.len(), 1 + batches + names.len());
}

/// What was refused is created now, and what was acknowledged is known.
fn retry(client: &Stub, names: &[&str], acknowledged: &[usize], rows: usize) {
    for (name, acknowledged) in names.iter().zip(acknowledged) {
        for i in 0..=*acknowledged {
            let batch = format!("{name}-{i}");
            let result = upload(client, &batch, rows, Some(&batch)).unwrap();
            assert_eq!(result.already_applied, i < *acknowledged, "{batch}");
        }
    }
}

/// The server goes on through all of it.
#[test]
fn writes_work_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(12 * MIB) else { return };
    let db = disk.path().join("bills.db");
    let server = Server::start(config(db.clone())).unwrap();
    let client = Stub::new(&server.addr().to_string());
    upload(&client, "first", 10, None).unwrap();
    let mut batches = 0;
    for round in 0..3 {
        let ballast = disk.fill("ballast", 12 * MIB);
        let name = format!("full-{round}");
        batches += upload_until_refused(&client, &name, 300);
        let event = format!("event-{round}");
        // A small write may still find room in a page that is there.
        if let Err(error) = reconcile_one(&client, &event) {
            assert_eq!(code(&error), Some(RpcStatusCode::UNAVAILABLE), "{error}");
        }
        fs::remove_file(ballast).unwrap();
        let batch = format!("room-{round}");
        upload(&client, &batch, 300, Some(&batch)).unwrap();
        batches += 1;
        reconcile_one(&client, &event).unwrap();
        assert_eq!(count_rows(&client), 10 + 300 * batches as i64);
    }
    server.shutdown().unwrap();
    assert_sound(&open(&db));
}

/// Only uploads that do not fit into memory need the spool.
#[test]
fn a_full_spool_refuses_large_uploads_alone() {
    let Some(disk) = SmallDisk::mount(2 * MIB) else { return };
    let local = Local::start(|config| {
        config.spool_dir = disk.path().to_owned();
        config.upload_memory_bytes = 64 << 10;
    });
    let client = local.client();
    let ballast = disk.fill("ballast", 2 * MIB);
    for _ in 0..3 {
        let refused = upload(&client, "large", 3_000, None).unwrap_err();
        assert_eq!(code(&refused), Some(RpcStatusCode::UNAVAILABLE), "{refused}");
    }
    upload(&client, "small", 100, None).unwrap();
    assert_eq!(count_rows(&client), 100);
    fs::remove_file(ballast).unwrap();
    upload(&client, "large", 3_000, None).unwrap();
    assert_eq!(count_rows(&client), 3_100);
    // The spooled files have no name, and their room comes back.
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    local.stop_and(assert_sound);
}
