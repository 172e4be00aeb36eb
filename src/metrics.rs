//! What the server counts while it works. Each number is kept where the thing happens.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The numbers of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Calls that ended OK.
    pub calls_ok: Counter,
    /// Calls that ended with any other status.
    pub calls_failed: Counter,
    /// Calls whose first message did not come in `first_message_timeout_ms`.
    pub calls_without_message: Counter,
    /// Exports that were refused for `max_exports`, a share of it, or `max_streams_per_connection`.
    pub exports_refused: Counter,
    /// The same of uploads, for `max_uploads`.
    pub uploads_refused: Counter,
    /// The same of Reconcile streams, for `max_reconciles`.
    pub reconciles_refused: Counter,
    /// Unary calls that were refused for `max_queued_unary` or a share of it.
    pub unary_refused: Counter,
    /// Rows that exports read from SQLite, whether they matched or not.
    pub rows_scanned: Counter,
    /// Scans that gave back their thread and connection because their client was slow.
    pub scans_parked: Counter,
    /// Transactions that the writer committed.
    pub commits: Counter,
    /// Jobs (uploads, batches of events) in those transactions.
    pub jobs_committed: Counter,
    /// Events that Reconcile acknowledged.
    pub events_acknowledged: Counter,
    /// Invoices that BulkCreate created.
    pub invoices_created: Counter,
    /// The size of the write-ahead log in bytes after the last commit.
    pub wal_bytes: Gauge,
    /// 1 while the database file or its log is not the one at its path, or damaged: nothing is written.
    pub file_faults: Gauge,
    /// Times the write-ahead log was emptied because it had reached `wal_limit_bytes`.
    pub wal_truncations: Counter,
}
