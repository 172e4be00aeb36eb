//! A scan that can wait: it yields chunks of encoded rows, stops where it is told to, and goes on
//! from there, on another connection and in another transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rusqlite::Connection;

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::model::Filter;
use crate::store::encode::Chunk;
use crate::store::read::{for_each_invoice, last_sequence, Reader};

/// Raised while the write-ahead log is over its limit: long scans then begin a new transaction,
/// so that the log can be emptied.
#[derive(Clone, Debug, Default)]
pub struct WalPressure(Arc<AtomicBool>);

impl WalPressure {
    pub fn set(&self, raised: bool) {
        self.0.store(raised, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of a chunk that a scan offered.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// It was taken; the scan goes on.
    Taken,
    /// It was taken; the scan is to give back its connection.
    TakenLast,
    /// It was not taken: the scan gives back its connection, and makes it again later.
    Refused,
}

/// How a turn of a scan ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// There are no more rows.
    Done,
    /// The scan goes on from its cursor at the next turn.
    Paused,
}

/// The progress of one export. Between turns it holds a cursor and nothing of SQLite.
pub struct Scan {
    filter: Filter,
    /// The last sequence that was taken.
    after: i64,
    /// The last sequence of the set; fixed when the scan first runs.
    until: Option<i64>,
    /// Rows still to be taken; -1: all.
    remaining: i64,
    /// The size of the next chunk in bytes.
    chunk_bytes: usize,
    max_chunk_bytes: usize,
    metrics: Arc<Metrics>,
    wal_pressure: WalPressure,
}

impl Scan {
    /// `max_rows` 0: all.
    pub fn new(
        filter: Filter,
        after: i64,
        max_rows: i64,
        config: &Config,
        metrics: Arc<Metrics>,
        wal_pressure: WalPressure,
    ) -> Scan {
        Scan {
            filter,
            after,
            until: None,
            remaining: if max_rows == 0 { -1 } else { max_rows },
            chunk_bytes: config.export_first_chunk_bytes.min(config.export_chunk_bytes),
            max_chunk_bytes: config.export_chunk_bytes,
            metrics,
            wal_pressure,
        }
    }

    /// Whether it has had a turn.
    pub fn has_begun(&self) -> bool {
        self.until.is_some()
    }

    /// Runs until the rows end or `offer` says so.
    pub fn run(
        &mut self,
        reader: &Reader,
        unwanted: impl Fn() -> bool + Clone + Send + 'static,
        mut offer: impl FnMut(Chunk) -> Offer,
    ) -> Result<Turn> {
        loop {
            let pass = |conn: &Connection| self.pass(conn, &mut offer);
            if let Some(turn) = reader.read(unwanted.clone(), pass)? {
                return Ok(turn);
            }
        }
    }

    /// One transaction; `None` when another is to follow at once.
    fn pass(
        &mut self,
        conn: &Connection,
        offer: &mut impl FnMut(Chunk) -> Offer,
    ) -> Result<Option<Turn>> {
        let until = match self.until {
            Some(until) => until,
            None => *self.until.insert(last_sequence(conn)?),
        };
        let filter = self.filter.clone();
        let mut chunk = Chunk::with_capacity(self.chunk_bytes + 512);
        let mut stopped = None;
        for_each_invoice(conn, &filter, (self.after, until, self.remaining), |row| {
            chunk.push(row)?;
            if chunk.batch().len() < self.chunk_bytes {
                return Ok(true);
            }
            stopped = self.offer(std::mem::take(&mut chunk), offer);
            chunk = Chunk::with_capacity(self.chunk_bytes + 512);
            Ok(stopped.is_none())
        })?;
        Ok(match stopped {
            Some(Stop::Pause) => Some(Turn::Paused),
            Some(Stop::NewTransaction) => None,
            None if chunk.is_empty() => Some(Turn::Done),
            None => match self.offer(chunk, offer) {
                Some(Stop::Pause) => Some(Turn::Paused),
                _ => Some(Turn::Done),
            },
        })
    }

    fn offer(&mut self, chunk: Chunk, offer: &mut impl FnMut(Chunk) -> Offer) -> Option<Stop> {
        let (rows, last) = (chunk.len() as i64, chunk.last_sequence());
        self.metrics.rows_scanned.add(rows as u64);
        let answer = offer(chunk);
        if answer == Offer::Refused {
            return Some(Stop::Pause);
        }
        self.after = last;
        self.remaining -= if self.remaining > 0 { rows } else { 0 };
        self.chunk_bytes = (self.chunk_bytes * 2).min(self.max_chunk_bytes);
        match answer {
            Offer::TakenLast => Some(Stop::Pause),
            // `LIMIT 0` would be a new transaction for nothing.
            _ if self.wal_pressure.get() && self.remaining != 0 => Some(Stop::NewTransaction),
            _ => None,
        }
    }
}

enum Stop {
    Pause,
    NewTransaction,
}
