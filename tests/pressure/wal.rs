//! The write-ahead log stays small under constant writes, whoever reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::ExportRequest;
use billstream::Config;
use futures::executor::block_on;
use futures::StreamExt;

use crate::common::*;
use crate::support::*;

const LIMIT: u64 = 1 << 20;
/// The limit, and what the commit that reaches it may bring: its uploads of 100 rows change a few
/// hundred pages of 4 KiB each.
const BOUND: u64 = 4 * LIMIT;

fn config() -> Config {
    Config { wal_limit_bytes: LIMIT, export_workers: 4, ..Config::default() }
}

fn wal_size(server: &TestServer) -> u64 {
    server.config.db.with_extension("db-wal").metadata().map_or(0, |file| file.len())
}

/// Uploads of 100 invoices, one after another, until told to stop; how many uploads.
fn write_on(client: &Stub, name: &str, stop: &AtomicBool) -> i64 {
    let mut uploads = 0;
    while !stop.load(Ordering::Relaxed) {
        let invoices = (0..100).map(|i| invoice(&format!("{name}-{uploads}-{i}"), 1));
        assert_eq!(upload(client, invoices).unwrap().created_count, 100);
        uploads += 1;
    }
    uploads
}

/// Reads one batch after another with a pause: too slow to drain, too quick to be parked. Begins
/// again at the end, until told to stop.
fn drip(client: &Stub, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let request = ExportRequest::new();
        let mut batches = client.export_invoice_batches(&request, options()).unwrap();
        while let Some(batch) = block_on(batches.next()) {
            assert!(!batch.unwrap().invoices.is_empty());
            if stop.load(Ordering::Relaxed) {
                return;
            }
            // The pace of this reader, which is what is tested.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn assert_totals_are_those_of_the_rows(server: &TestServer) {
    let off: i64 = server
        .sql()
        .query_row(
            "SELECT (SELECT sum(invoice_count) FROM currency_totals) - (SELECT count(*) FROM invoices)
                  + (SELECT sum(total_cents) FROM currency_totals)
                  - (SELECT sum(total_amount_cents) FROM invoices)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(off, 0);
}

#[test]
fn slow_readers_and_constant_writes_leave_the_log_small() {
    let _alone = alone();
    // As many readers that hold their connection as there are workers, and then four times as many.
    for readers in [4, 16] {
        // Chunks so small that the client's windows are full at the pace of these readers.
        let config = Config { export_chunk_bytes: 4096, park_after_ms: 500, ..config() };
        let server = TestServer::with_copy(&database(1_000_000), config);
        let (uploads, largest) = under_load(&server, readers, Duration::from_secs(4));
        let metrics = server.get().metrics();
        println!(
            "{readers} slow readers, {uploads} uploads: the log had {largest} bytes at the most, was \
             emptied {} times; {} scans parked",
            metrics.wal_truncations.get(),
            metrics.scans_parked.get()
        );
        assert!(largest < BOUND, "{largest}");
        // Each waits for the readers to leave within a chunk, which is not the second after which
        // it is given up: many, then, and every time that the limit was reached.
        assert!(metrics.wal_truncations.get() > 5, "{}", metrics.wal_truncations.get());
        assert_eq!(summary(&server.client()).invoice_count, 1_000_000 + uploads * 100);
        assert_totals_are_those_of_the_rows(&server);
    }
}

/// The uploads made meanwhile, and the largest size of the log, by the file and by the metric.
fn under_load(server: &TestServer, readers: usize, time: Duration) -> (i64, u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let spawn = |work: Box<dyn FnOnce(&AtomicBool) -> i64 + Send>| {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || work(&stop))
    };
    let mut threads = Vec::new();
    for client in slow_clients(&server.addr(), readers) {
        threads.push(spawn(Box::new(move |stop| {
            drip(&client, stop);
            0
        })));
    }
    for (i, client) in clients(&server.addr(), 4).into_iter().enumerate() {
        threads.push(spawn(Box::new(move |stop| write_on(&client, &format!("w{i}"), stop))));
    }
    let (mut largest, start) = (0, Instant::now());
    while start.elapsed() < time {
        let reported = server.get().metrics().wal_bytes.get() as u64;
        largest = largest.max(wal_size(server)).max(reported);
        std::thread::sleep(Duration::from_millis(1));
    }
    stop.store(true, Ordering::Relaxed);
    (threads.into_iter().map(|thread| thread.join().unwrap()).sum(), largest)
}

#[test]
fn a_reader_of_another_process_holds_the_log_only_while_it_reads() {
    let server = TestServer::with_copy(&database(10_000), config());
    let client = server.client();
    let mut uploads = 0;
    let mut upload_one = || {
        let invoices = (0..100).map(|i| invoice(&format!("{uploads}-{i}"), 1));
        assert_eq!(upload(&client, invoices).unwrap().created_count, 100);
        uploads += 1;
    };
    let outside = server.sql();
    outside.execute_batch("BEGIN; SELECT count(*) FROM invoices;").unwrap();
    let held = 3 * LIMIT;
    eventually("the log is over its limit", || {
        upload_one();
        wal_size(&server) > held
    });
    assert_eq!(server.get().metrics().wal_truncations.get(), 0);
    outside.execute_batch("COMMIT").unwrap();
    // Written on as before, it is emptied, and small again.
    let (size, mut more) = (wal_size(&server), 0);
    eventually("the log is emptied", || {
        upload_one();
        more += 1;
        assert!(more < 500, "still {} bytes after {more} uploads more", wal_size(&server));
        wal_size(&server) < LIMIT
    });
    println!("the log had {size} bytes; emptied after {more} uploads more");
    assert_totals_are_those_of_the_rows(&server);
}
