//! The database, as verbs: what is in it passes this door, and how it is kept does not.
//!
//! | module | what it is |
//! |---|---|
//! | [`scan`] | exports: a scan that can wait |
//! | [`encode`] | from the columns of a row to protobuf bytes |
//! | `disk` | the room on a disk |
//! | [`staged`] | uploads before their commit |
//! | `write`, `jobs` | the one writer and its group commit; what waits for it |
//! | `sqlite` | all that is SQLite's own; its map is there |

mod disk;
pub mod encode;
mod jobs;
pub mod scan;
mod sqlite;
pub mod staged;
mod write;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::model::{Ack, Created, Event, Filter, Summary};
use crate::stop::Stop;
use encode::Chunk;
use scan::{ChunkBytes, Scan, Set, Source};
use sqlite::file::DatabaseFile;
use sqlite::Database;
use staged::Staged;
use write::{StopWriter, Writer};

pub use jobs::Reply;
pub use sqlite::copy::{backup, check_copy, NewFile};
pub use sqlite::maintain::{check, CheckReport};
pub use sqlite::restore::{restore, Restored};

/// An open database. What it is given it has for all its clones.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// The rows and how they are read. A second engine makes this an enum of the two, and has its own
    /// [`write::Transaction`]; all else is of none.
    database: Database,
    writer: Writer,
    chunk_bytes: ChunkBytes,
}

/// How long a read may wait for a connection, and for another process that has the database locked.
#[derive(Clone, Copy, Debug)]
pub enum Wait<'a> {
    /// Not at all: where it would have to, it fails with [`Error::Unavailable`](crate::Error::Unavailable).
    /// For threads that must not block, and reads that are bounded.
    No,
    /// `busy_timeout_ms`. It ends soon after the stop, with its reason.
    Until(&'a Stop),
}

/// The database at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The size of a copy of it.
    pub bytes: u64,
    pub invoice_count: i64,
    /// The highest that was given.
    pub last_sequence: i64,
}

/// An invoice and some of the events that were applied to it.
#[derive(Clone, Debug)]
pub struct History {
    /// One row.
    pub invoice: Chunk,
    /// Newest first.
    pub events: Chunk,
    /// The event_sequence before which there are more.
    pub next_before: Option<i64>,
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
        let (database, connection, file) = sqlite::open(config, metrics)?;
        let writer = Writer::new(config);
        let thread = writer.start(connection, Arc::clone(metrics))?;
        let thread = StoreThread { writer: Some(thread), file };
        let store = Inner { database, writer, chunk_bytes: ChunkBytes::of(config) };
        Ok((Store(Arc::new(store)), thread))
    }

    /// Counts and sums by currency, and the highest sequence. Of `filter`, the customer and the dates.
    pub fn summary(&self, filter: &Filter, wait: Wait<'_>) -> Result<Summary> {
        self.database().summary(filter, wait)
    }

    /// A page of at most `size` invoices after a cursor, and the cursor to go on from; `None` where there are
    /// no more. `is_enough` is asked now and then, with the rows read so far, whether the page is to end where
    /// it is, however few match: each page gets on, so that following the cursor ends.
    pub fn page(
        &self,
        filter: &Filter,
        after: i64,
        size: usize,
        is_enough: impl Fn(usize) -> bool,
        wait: Wait<'_>,
    ) -> Result<(Chunk, Option<i64>)> {
        self.database().page(filter, after, size, is_enough, wait)
    }

    /// The invoice with this id, and its newest events of those before the event_sequence `before`, at most
    /// `max_events` (over 0); all of one moment. `None` where there is no such invoice. It costs what it gives,
    /// unless `before` is no event of the invoice.
    pub fn history(
        &self,
        invoice_id: &str,
        max_events: usize,
        before: i64,
        wait: Wait<'_>,
    ) -> Result<Option<History>> {
        self.database().history(invoice_id, max_events, before, wait)
    }

    /// The rows of an export, which are read in turns. Its chunks have `export_first_chunk_bytes` and more, up
    /// to `export_chunk_bytes`, and for a client that has shown that it is quick `quick_chunk_bytes`, which are
    /// not fewer.
    pub fn scan(&self, set: Set, quick_chunk_bytes: usize) -> Scan {
        Scan::new(self.clone(), set, self.0.chunk_bytes, quick_chunk_bytes)
    }

    /// Creates the invoices of `staged`, all or none. With a `batch_id` (not empty) under which the same
    /// invoices were created before, gives their result instead; under which others were,
    /// [`Error::Aborted`](crate::Error::Aborted). Never blocks; the result comes after the commit, and
    /// dropping the [`Reply`] before that takes the upload back, if it is not being committed already.
    ///
    /// As a trial it is done and rolled back: the result is what it would be, and nothing stays of it.
    pub fn create(
        &self,
        batch_id: String,
        staged: Staged,
        is_trial: bool,
    ) -> Result<Reply<Created>> {
        self.0.writer.create(batch_id, staged, is_trial)
    }

    /// Applies events in their order, each once, and gives an acknowledgement for each. Never blocks; the
    /// result comes after the commit, when `events` are the caller's alone again. A trial is that of
    /// [`Store::create`].
    pub fn apply(&self, events: Arc<Vec<Event>>, is_trial: bool) -> Result<Reply<Vec<Ack>>> {
        self.0.writer.apply(events, is_trial)
    }

    /// Copies the database as it is now into a temporary file without a name in `dir`; `begun` is told before
    /// what the copy will be. What is written meanwhile is not in it, and goes on; but for so long the log is not
    /// emptied. Blocks, for a time by the size of the database; it ends soon after `stop`, with its reason.
    ///
    /// [`Error::Exhausted`](crate::Error::Exhausted) where less than `spare_bytes` of the disk would stay free.
    pub fn snapshot(
        &self,
        dir: &Path,
        spare_bytes: u64,
        stop: &Stop,
        begun: impl FnOnce(Snapshot) -> Result<()>,
    ) -> Result<File> {
        self.database().snapshot(dir, spare_bytes, stop, begun)
    }

    /// The highest sequence of `source` that is committed: what is at it or below is seen by whoever reads from
    /// now on, and what comes later is above it. Never blocks.
    pub fn committed(&self, source: &Source) -> i64 {
        self.database().committed(source)
    }

    /// Why the database cannot be written now; nothing where it can. It asks the file system, which may block;
    /// what the writer finds it knows: with each commit, and once a second where there is none.
    pub fn health(&self) -> Vec<String> {
        self.database().health()
    }

    /// Jobs that wait for the writer, and how many may.
    pub fn waiting_jobs(&self) -> (usize, usize) {
        self.0.writer.waiting_jobs()
    }

    /// The engine with its version, such as `SQLite 3.53.0`.
    pub fn engine(&self) -> String {
        self.database().engine()
    }

    /// Connections that readers have checked out at this moment.
    pub fn connections_in_use(&self) -> u32 {
        self.database().connections_in_use()
    }

    /// Closes the connections of readers, each as soon as it is given back. It is for the end of the server:
    /// the writer then closes the last one, and the database is one file again.
    pub fn close(&self) {
        self.database().close();
    }

    fn database(&self) -> &Database {
        &self.0.database
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
