//! The database.
//!
//! | module | what it is |
//! |---|---|
//! | [`sqlite`] | all that is SQLite's own |
//! | [`scan`] | exports: a scan that can wait |
//! | [`encode`] | from a row to protobuf bytes |
//! | [`mod@write`], [`jobs`] | the one writer and its group commit; what waits for it |
//! | [`staged`] | uploads before their commit |

pub mod encode;
pub mod jobs;
pub mod scan;
pub mod sqlite;
pub mod staged;
pub mod write;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use scan::WalPressure;
use sqlite::file::DatabaseFile;
use sqlite::read::Reader;
use sqlite::wal::Wal;
use sqlite::{open, read};
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
