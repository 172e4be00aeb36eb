//! The engine: the only module that knows SQLite.
//!
//! | module | what it is |
//! |---|---|
//! | [`file`](mod@file) | one file with one name and one server |
//! | [`open`] | is the file ours; pragmas |
//! | [`upgrade`](mod@upgrade) | the file of an older version |
//! | [`sql`] | the statements of `sql/` |
//! | [`push`] | the SQL functions that encode a row |
//! | [`read`] | the pool of read-only connections, and pages |
//! | [`summary`], [`scan`], [`history`] | counts and sums; the rows of an export; the events of an invoice |
//! | [`write`](mod@write) | the connection that writes |
//! | [`bulk`], [`reconcile`] | what an upload and a batch of payments write |
//! | [`totals`] | the kept totals |
//! | [`wal`] | the write-ahead log: its limit, and when it is copied |
//! | [`health`] | why the database cannot be written now |
//! | [`guard`], [`wal_file`] | is the file under the server as it was left; the log's format |
//! | [`maintain`], [`copy`](mod@copy), [`restore`](mod@restore) | check, backup and restore |

pub mod bulk;
pub mod copy;
pub mod error;
pub mod file;
pub mod guard;
pub mod health;
pub mod history;
pub mod maintain;
pub mod open;
pub mod push;
pub mod read;
pub mod reconcile;
pub mod restore;
pub mod scan;
pub mod sql;
pub mod summary;
pub mod totals;
pub mod upgrade;
pub mod wal;
pub mod wal_file;
pub mod write;

/// For tests that look at the file from beside the store.
#[cfg(test)]
pub use rusqlite::{params, Connection};

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::model::{Filter, Summary};
use crate::stop::Stop;
use crate::store::encode::Chunk;
use crate::store::scan::{Progress, Range, Source};
use crate::store::{History, Wait};
use file::DatabaseFile;
use health::Health;
use read::Reader;
use wal::{Wal, WalPressure};
use write::WriteConnection;

/// An open database, for those who read it.
pub struct Database {
    reader: Reader,
    pressure: WalPressure,
    committed: Arc<Committed>,
    metrics: Arc<Metrics>,
    health: Health,
}

/// The highest sequences that this process has committed.
pub struct Committed {
    sequence: AtomicI64,
    event_sequence: AtomicI64,
}

impl Committed {
    /// Those of the database.
    fn read(conn: &rusqlite::Connection) -> Result<Committed> {
        let sequence = AtomicI64::new(read::last_sequence(conn)?);
        let event_sequence = AtomicI64::new(read::last_event_sequence(conn)?);
        Ok(Committed { sequence, event_sequence })
    }

    /// A commit has given these, where it gave any.
    pub fn set(&self, (sequence, event_sequence): (Option<i64>, Option<i64>)) {
        sequence.iter().for_each(|last| self.sequence.store(*last, Ordering::Release));
        event_sequence.iter().for_each(|last| self.event_sequence.store(*last, Ordering::Release));
    }
}

/// Opens the database that `config` names, and creates or upgrades it. (The file is to be dropped after both
/// others.)
pub fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<(Database, WriteConnection, DatabaseFile)> {
    let (file, conn) = open::open_writer(config)?;
    let reader = Reader::open(file.path(), config, metrics)?;
    let pressure = WalPressure::default();
    let committed = Arc::new(Committed::read(&conn)?);
    let (raised, malformed) = (pressure.clone(), reader.malformed.clone());
    let health = Health::new(&file, config)?;
    let (opened, told) = ((&file, &conn), health.clone());
    let wal = Wal::new(opened, config, Arc::clone(metrics), raised, malformed, told)?;
    let writer = WriteConnection::new(conn, wal, health.clone(), Arc::clone(&committed));
    let metrics = Arc::clone(metrics);
    let database = Database { reader, pressure, committed, metrics, health };
    Ok((database, writer, file))
}

impl Database {
    pub fn summary(&self, filter: &Filter, wait: Wait<'_>) -> Result<Summary> {
        self.reader.read(wait, |conn| summary::summary(conn, filter))
    }

    pub fn page(
        &self,
        filter: &Filter,
        after: i64,
        size: usize,
        is_enough: impl Fn(usize) -> bool,
        wait: Wait<'_>,
    ) -> Result<(Chunk, Option<i64>)> {
        self.reader.read(wait, |conn| read::page(conn, filter, after, size, is_enough))
    }

    pub fn history(
        &self,
        invoice_id: &str,
        max_events: usize,
        before: i64,
        wait: Wait<'_>,
    ) -> Result<Option<History>> {
        self.reader.read(wait, |conn| history::history(conn, invoice_id, max_events, before))
    }

    /// Reads `range` in one transaction; see [`scan::chunks`].
    pub fn chunks(
        &self,
        stop: &Stop,
        range: Range<'_>,
        hand: Chunk,
        bytes: usize,
        each: impl FnMut(Progress) -> Result<Option<usize>>,
    ) -> Result<Chunk> {
        let metrics = &self.metrics;
        self.reader.read_until(stop, |conn| scan::chunks(conn, range, hand, bytes, metrics, each))
    }

    /// Whether a long scan is to begin a new transaction.
    pub fn wants_new_transaction(&self) -> bool {
        self.pressure.get()
    }

    #[cfg(test)]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    #[cfg(test)]
    pub fn pressure(&self) -> &WalPressure {
        &self.pressure
    }

    pub fn committed(&self, source: &Source) -> i64 {
        let (published, kept): (_, fn(&rusqlite::Connection) -> Result<i64>) = match source {
            Source::Invoices(_) => (&self.committed.sequence, read::last_sequence),
            Source::Events => (&self.committed.event_sequence, read::last_event_sequence),
        };
        let published = published.load(Ordering::Acquire);
        // Other programs write too, and publish nothing.
        match self.reader.read_now(kept) {
            Ok(Some(kept)) => kept.max(published),
            // Whoever reads the rows will hear what is wrong.
            Ok(None) | Err(_) => published,
        }
    }

    pub fn health(&self) -> Vec<String> {
        self.health.reasons()
    }

    pub fn engine(&self) -> String {
        format!("SQLite {}", rusqlite::version())
    }

    pub fn connections_in_use(&self) -> u32 {
        self.reader.connections_in_use()
    }

    pub fn close(&self) {
        self.reader.close();
    }
}
