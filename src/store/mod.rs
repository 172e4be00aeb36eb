//! The database: the only module that knows SQLite.
//!
//! | module | what it is |
//! |---|---|
//! | [`open`] | is the file ours, is it free; pragmas, migrations |
//! | [`sql`] | the statements of `sql/` |
//! | [`read`] | the pool of read-only connections, and pages |
//! | [`summary`] | counts and sums |
//! | [`scan`] | exports: a scan that can wait |
//! | [`encode`] | from a row to protobuf bytes |
//! | [`mod@write`], [`jobs`] | the one writer and its group commit; what waits for it |
//! | [`staged`], [`bulk`] | uploads before and at their commit |
//! | [`reconcile`] | payments |
//! | [`totals`] | the kept totals |
//! | [`wal`] | the write-ahead log and its limit |
//! | [`maintain`] | check and backup |

pub mod bulk;
pub mod encode;
mod error;
pub mod jobs;
pub mod maintain;
pub mod open;
pub mod read;
pub mod reconcile;
pub mod scan;
pub mod sql;
pub mod staged;
pub mod summary;
pub mod totals;
pub mod wal;
pub mod write;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use read::Reader;
use scan::WalPressure;
use wal::Wal;
use write::{StopWriter, Writer};

/// An open database. Blocking: its methods are for threads that may wait.
#[derive(Clone)]
pub struct Store {
    pub reader: Reader,
    pub writer: Writer,
    pub wal_pressure: WalPressure,
    committed: Arc<AtomicI64>,
}

/// What keeps a [`Store`] open: the writer's thread and the lock on the database.
pub struct StoreThread {
    thread: JoinHandle<()>,
    stop: StopWriter,
    _lock: open::ServerLock,
}

impl Store {
    /// Opens the database that `config` names, creates or upgrades it, and starts its writer.
    pub fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<(Store, StoreThread)> {
        let (conn, path, lock) = open::open_writer(config)?;
        let reader = Reader::open(&path, config)?;
        let wal_pressure = WalPressure::default();
        let committed = Arc::new(AtomicI64::new(read::last_sequence(&conn)?));
        let wal = Wal::new(&path, config, Arc::clone(metrics), wal_pressure.clone());
        let (writer, stop, thread) =
            write::start(conn, wal, config, Arc::clone(metrics), Arc::clone(&committed))?;
        Ok((
            Store { reader, writer, wal_pressure, committed },
            StoreThread { thread, stop, _lock: lock },
        ))
    }
}

impl Store {
    /// The highest sequence that is committed: what is at it or below is seen by whoever reads from now on,
    /// and what comes later is above it. Never blocks.
    pub fn committed_sequence(&self) -> i64 {
        let published = self.committed.load(Ordering::Acquire);
        // Other programs write too, and publish nothing.
        match self.reader.read_now(read::last_sequence) {
            Ok(Some(kept)) => kept.max(published),
            // Whoever reads the rows will hear what is wrong.
            Ok(None) | Err(_) => published,
        }
    }
}

impl StoreThread {
    /// Waits for the jobs that the writer has, ends it, and gives the database free.
    pub fn stop(self) {
        drop(self.stop);
        // OK because the writer catches the panics of its jobs.
        self.thread.join().expect("the writer's thread does not panic");
    }
}
