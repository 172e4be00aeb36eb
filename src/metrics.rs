//! What the server counts while it works. Each number is kept where the thing happens.
//!
//! Counting takes no lock and no memory: what has labels is an array with a place for each value that there can
//! be, made at the start.

mod family;
mod histogram;
mod text;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::method::Method;
use crate::status::Code;
pub(crate) use family::{Family, Interrupted, Label, Limit};
pub(crate) use histogram::{Histogram, Jobs, Scale, Seconds};
pub(crate) use text::{Shown, Text, Values};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value now, after which it begins anew.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
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

/// Defines [`Metrics`] and how it is shown to Prometheus from one table.
macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $vis:vis $name:ident: $type:ty;)+) => {
        /// The numbers of one server. `Server::prometheus` has them all as text.
        #[derive(Debug, Default)]
        pub struct Metrics {
            /// Calls that ended OK.
            pub calls_ok: Counter,
            /// Calls that ended with any other status.
            pub calls_failed: Counter,
            $($(#[doc = $doc])+ $vis $name: $type,)+
        }

        impl Shown for Metrics {
            /// All but what `rpc_server_call_duration_seconds` has by method and code.
            fn show(&self, text: &mut Text) {
                $(text.show(stringify!($name), concat!($($doc),+), &self.$name);)+
            }
        }
    };
}

metrics! {
    /// Time from the headers of a call to its status, by method and code. (A message that the client has not
    /// taken may follow it.)
    pub(crate) rpc_server_call_duration_seconds: Family<(Method, Code), Histogram<Seconds>>;
    /// Messages that came over gRPC, by method.
    pub(crate) received_messages: Family<Method>;
    /// The bytes of those messages.
    pub(crate) received_bytes: Family<Method>;
    /// Messages that were handed to gRPC for their clients, by method; those of exports are counted a chunk at
    /// a time.
    pub(crate) sent_messages: Family<Method>;
    /// The bytes of those messages.
    pub(crate) sent_bytes: Family<Method>;
    /// Calls whose first message did not come in `first_message_timeout_ms`.
    pub calls_without_message: Counter;
    /// Calls that were refused, or ended, for a limit of the configuration; `limit` is the setting. (A share of
    /// a limit counts as that limit.)
    pub(crate) limit_reached: Family<Limit>;
    /// Calls of clients whose certificate has no name of `tls_allowed_clients`.
    pub clients_refused: Counter;
    /// Calls that were refused because their caller had not shown who it is. They had no place of any limit.
    pub calls_unauthenticated: Counter;
    /// Calls that were refused because their caller was without the right to make them.
    pub calls_denied: Counter;
    /// Rows that exports read from SQLite, whether they matched or not.
    pub rows_scanned: Counter;
    /// Rows that were handed to the clients of exports.
    pub rows_exported: Counter;
    /// Scans that gave back their thread and connection because their client was slow.
    pub scans_parked: Counter;
    /// Reads of SQLite that were given up before their end, by `reason`.
    pub(crate) sql_interrupted: Family<Interrupted>;
    /// Transactions that the writer committed.
    pub commits: Counter;
    /// Jobs (uploads, batches of events) in those transactions.
    pub jobs_committed: Counter;
    /// Transactions of the writer that failed as a whole, with all their jobs: the database was locked, the disk
    /// full, the file not at its path.
    pub commits_failed: Counter;
    /// The same by transaction: how many jobs share a commit.
    pub(crate) commit_jobs: Histogram<Jobs>;
    /// Time of COMMIT alone, which has the fsync of the log in it where `synchronous` is full.
    pub(crate) commit_duration_seconds: Histogram<Seconds>;
    /// Events that Reconcile acknowledged.
    pub events_acknowledged: Counter;
    /// Invoices that BulkCreate created.
    pub invoices_created: Counter;
    /// The size of the write-ahead log in bytes after the last commit.
    pub wal_bytes: Gauge;
    /// 1 while the database file or its log is not the one at its path, or damaged: nothing is written.
    pub file_faults: Gauge;
    /// Times the write-ahead log was emptied because it had reached `wal_limit_bytes`.
    pub wal_truncations: Counter;
}

impl Metrics {
    /// Uploads that ended without creating anything.
    pub(crate) fn uploads_failed(&self) -> u64 {
        let calls = &self.rpc_server_call_duration_seconds;
        let is_upload = |method| matches!(method, Method::BulkCreate | Method::BulkCreateBatches);
        let failed =
            calls.iter().filter(|((method, code), _)| is_upload(*method) && *code != Code::Ok);
        failed.map(|(_, calls)| calls.count()).sum()
    }

    /// Calls that were refused, or ended, for the limit of this name, such as `max_exports`, or a share of it; of
    /// what is no limit of [`Config`](crate::Config) none.
    pub fn refused(&self, limit: &str) -> u64 {
        Limit::named(limit).map_or(0, |limit| self.limit_reached.of(limit).get())
    }
}
