//! The database: the only module that knows SQLite.
//!
//! | module | what it is |
//! |---|---|
//! | [`file`](mod@file) | one file with one name and one server |
//! | [`open`] | is the file ours; pragmas, migrations |
//! | [`sql`] | the statements of `sql/` |
//! | [`read`] | the pool of read-only connections, and pages |
//! | [`summary`] | counts and sums |
//! | [`scan`] | exports: a scan that can wait |
//! | [`encode`] | from a row to protobuf bytes |
//! | [`mod@write`], [`jobs`] | the one writer and its group commit; what waits for it |
//! | [`staged`], [`bulk`] | uploads before and at their commit |
//! | [`reconcile`] | payments |
//! | [`totals`] | the kept totals |
//! | [`wal`] | the write-ahead log: its limit, and when it is copied |
//! | [`guard`], [`wal_file`] | is the file under the server as it was left; the log's format |
//! | [`maintain`], [`restore`](mod@restore) | check, backup and restore |

pub mod bulk;
pub mod encode;
mod error;
pub mod file;
pub mod guard;
pub mod jobs;
pub mod maintain;
pub mod open;
pub mod read;
pub mod reconcile;
pub mod restore;
pub mod scan;
pub mod sql;
pub mod staged;
pub mod summary;
pub mod totals;
pub mod wal;
pub mod wal_file;
pub mod write;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use file::DatabaseFile;
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

/// What keeps a [`Store`] open: the writer's thread and the lock on the database. Dropping it waits for the
/// jobs that the writer has, ends it, and gives the database free.
pub struct StoreThread {
    /// `None` once it was stopped.
    writer: Option<(StopWriter, JoinHandle<()>)>,
    /// Dropped last: see [`DatabaseFile`].
    file: DatabaseFile,
}

impl Store {
    /// Opens the database that `config` names, creates or upgrades it, and starts its writer.
    pub fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<(Store, StoreThread)> {
        let (file, conn) = open::open_writer(config)?;
        let reader = Reader::open(file.path(), config)?;
        let wal_pressure = WalPressure::default();
        let committed = Arc::new(AtomicI64::new(read::last_sequence(&conn)?));
        let (pressure, malformed) = (wal_pressure.clone(), reader.malformed.clone());
        let wal = Wal::new((&file, &conn), config, Arc::clone(metrics), pressure, malformed)?;
        let (writer, stop, thread) =
            write::start(conn, wal, config, Arc::clone(metrics), Arc::clone(&committed))?;
        let thread = StoreThread { writer: Some((stop, thread)), file };
        Ok((Store { reader, writer, wal_pressure, committed }, thread))
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
    /// Tells programs that are refused the database where it is served: `addresses`, a line of text.
    pub fn tell(&self, addresses: &str) {
        self.file.tell(addresses);
    }

    /// The start has succeeded: what it made stays. (Dropped before that, it leaves no file behind that was
    /// not there before.)
    pub fn keep(&mut self) {
        self.file.keep();
    }

    /// Drops it, and keeps the database.
    pub fn stop(mut self) {
        self.keep();
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.writer.take() else { return };
        drop(stop);
        if thread.join().is_err() {
            log::error!("the writer's thread panicked");
        }
    }
}
