//! What no server can pass: the same work without a server, in this process.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use compare::{bulk, encode, load, proto, store};

use crate::data::{Data, Result};
use crate::server;

/// Operations, the time they took, and the CPU time.
pub struct Limit {
    pub operations: u64,
    pub seconds: f64,
    pub cpu: Option<f64>,
}

fn timed(work: impl FnOnce() -> Result<u64>) -> Result<Limit> {
    let schedstat = Path::new("/proc/thread-self/schedstat");
    let (start, before) = (Instant::now(), server::nanoseconds(schedstat));
    let operations = work()?;
    let seconds = start.elapsed().as_secs_f64();
    let after = server::nanoseconds(schedstat);
    let cpu = before.zip(after).map(|(before, after)| (after - before) as f64 / 1e9);
    Ok(Limit { operations, seconds, cpu })
}

/// Every row from SQLite to the bytes of an `InvoiceBatch`, which go nowhere.
pub fn scan_and_encode(db: &Path, max_rows: i64) -> Result<Limit> {
    let connection = store::open(db)?;
    let request = proto::ExportRequest { max_rows, ..Default::default() };
    timed(move || {
        let mut rows = 0;
        let scanned = encode::pushed(68 << 10, || {
            store::Scan::export(&connection, &request, store::PUSHED_ENTRY)?.run(
                &connection,
                |_| {
                    rows += 1;
                    if encode::pushed_bytes() >= 64 << 10 {
                        encode::clear_pushed();
                    }
                    Ok(true)
                },
            )
        });
        scanned.map_err(tonic::Status::from)?;
        Ok(rows)
    })
}

/// The rows of a BulkCreate inserted under the same triggers and pragmas, in one transaction.
pub fn raw_inserts(data: &Data, base: usize, rows: usize) -> Result<Limit> {
    let mut connection = store::open(&data.copy(base)?)?;
    let prefix = load::unique();
    let invoices: Vec<_> = (0..rows).map(|n| load::invoice(&prefix, n)).collect();
    timed(move || {
        let transaction = store::begin(&mut connection)?;
        bulk::create(&transaction, &invoices, None).map_err(tonic::Status::from)?;
        transaction.commit()?;
        Ok(rows as u64)
    })
}

/// Transactions of one small row, each on disk before the next.
pub fn commits(data: &Data, duration: Duration) -> Result<Limit> {
    let directory = data.directory.join("commits.db");
    let mut connection = store::open(&directory)?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER)")?;
    timed(move || {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < duration {
            let transaction = store::begin(&mut connection)?;
            transaction.prepare_cached("INSERT INTO t VALUES (?1)")?.execute([count])?;
            transaction.commit()?;
            count += 1;
        }
        Ok(count as u64)
    })
}

/// Appends of a page to a file, each with an fdatasync.
pub fn syncs(data: &Data, duration: Duration) -> Result<Limit> {
    let mut file = File::create(data.directory.join("syncs"))?;
    timed(move || {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < duration {
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            count += 1;
        }
        Ok(count)
    })
}
