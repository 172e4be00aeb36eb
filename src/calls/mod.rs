//! The calls of `billing.v1` without a transport: what each does, for whoever carries it.
//!
//! A transport makes a [`Call`](call::Call) for each call, hands in its messages, and takes plain streams: an
//! export gives chunks, an upload takes rows, a reconcile takes events and gives acknowledgements. Admission,
//! validation, the limits on time and the one table of statuses are here.
//!
//! Nothing here blocks: what reads the database is a job of a worker thread, what writes is a job of the
//! writer, and the future of the call waits for either. (The exception, with its bound, is a small read: see
//! `unary`.)
//!
//! | module | what it is |
//! |---|---|
//! | `unary` | GetSummary, ListInvoices and GetInvoice |
//! | `export` | ExportInvoices, ExportInvoiceBatches and ExportEvents |
//! | `bulk_create`, `reconcile` | the calls that write |
//! | `backup` | Backup |
//! | `validate` | from messages to the model |
//! | `auth` | who may make which call |
//! | `status` | from errors to statuses: the one table |
//! | `rows`, `wire`, `token`, `limits`, `held`, `watch` | their tools |
//! | `live` | the streams that are open, for who looks on |
//! | `line`, `spent`, `request_id` | the line of the log at the end of each, and what is in it |
//! | `call` | what all have in common: who calls, the reasons to end, the count |
//! | `start` | the start of it all, and its threads |
//! | `sweep` | the thread that looks after calls that wait |

pub mod auth;
pub mod backup;
pub mod bulk_create;
pub mod call;
pub mod export;
pub mod held;
pub mod limits;
pub mod line;
pub mod live;
pub mod reconcile;
pub mod request_id;
pub mod rows;
pub mod spent;
pub mod start;
pub mod status;
pub mod sweep;
pub mod token;
pub mod unary;
pub mod validate;
pub mod watch;
pub mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::workers::Queue;
use call::{Seldom, Stopping};
use held::HeldByAll;
use limits::Limits;
use live::Streams;
use request_id::RequestIds;
use sweep::Sweep;
use unary::UnderWay;

/// What all calls share.
pub struct Core {
    pub config: Config,
    pub started: Instant,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    pub streams: Streams,
    pub held_by_reconciles: Arc<HeldByAll>,
    /// The threads of the unary calls.
    pub unary: Queue,
    pub unary_calls: UnderWay,
    /// The threads of the exports; the queue has room for every export that is admitted.
    pub exports: Queue,
    /// The thread that moves uploads to disk; the queue has room for every upload that is admitted.
    pub spool: Queue,
    /// The threads of the backups, one for each that is admitted.
    pub backups: Queue,
    pub sweep: Sweep,
    /// Calls that are open, those without a message too.
    pub calls_open: AtomicUsize,
    pub stopping: Stopping,
    /// For the log of calls without a message.
    pub seldom: Seldom,
    pub request_ids: RequestIds,
    pub slow: line::Slow,
}

impl Core {
    /// What keeps the server from serving, each for an operator; none where it can.
    pub fn not_ready(&self) -> Vec<String> {
        let is_draining = self.stopping.is_draining.load(Ordering::SeqCst);
        let draining = is_draining.then(|| "draining".to_owned());
        draining.into_iter().chain(self.store.health()).collect()
    }
}
