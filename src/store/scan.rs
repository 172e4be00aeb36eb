//! A scan that can wait: it yields chunks of encoded rows, stops where it is told to, and goes on
//! from there, on another connection and in another transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rusqlite::Connection;

use crate::config::{Config, BLOCK_CHUNKS};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::model::Filter;
use crate::stop::Stop;
use crate::store::encode::{sequence, Chunk};
use crate::store::sqlite::read::{in_transaction, push_invoices, Reader, ROWS_A_LOOK};

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
    /// It was taken at once; the scan goes on.
    Taken,
    /// It was taken after a while; the scan goes on.
    TakenLate,
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

/// The rows of an export.
#[derive(Clone, Debug)]
pub struct Set {
    pub filter: Filter,
    /// Only rows with a higher sequence.
    pub after: i64,
    /// The last sequence of the set.
    pub until: i64,
    /// The most rows; 0: all.
    pub max_rows: i64,
}

/// The progress of one export. Between turns it holds a cursor, the rows that it has found for a chunk that
/// is not full, and nothing of SQLite.
pub struct Scan {
    filter: Filter,
    /// The last sequence that was read. What matches up to it was taken, or is in `hand`.
    after: i64,
    /// Rows of a chunk that is not full.
    hand: Chunk,
    /// The last sequence of the set; fixed when the call starts.
    until: i64,
    /// Rows still to be taken.
    remaining: i64,
    /// The size of the next chunk in bytes.
    chunk_bytes: usize,
    max_chunk_bytes: usize,
    /// The same for a client that has shown that it is quick.
    quick_chunk_bytes: usize,
    /// Chunks of `max_chunk_bytes` or more that were taken at once, since the last that was not.
    quick_chunks: usize,
    /// The rows of the last of them.
    chunk_rows: i64,
    metrics: Arc<Metrics>,
    wal_pressure: WalPressure,
}

impl Scan {
    /// `quick_chunk_bytes` is `export_chunk_bytes` or more.
    pub fn new(
        set: Set,
        quick_chunk_bytes: usize,
        config: &Config,
        metrics: Arc<Metrics>,
        wal_pressure: WalPressure,
    ) -> Scan {
        Scan {
            filter: set.filter,
            after: set.after,
            hand: Chunk::default(),
            until: set.until,
            remaining: if set.max_rows == 0 { i64::MAX } else { set.max_rows },
            chunk_bytes: config.export_first_chunk_bytes.min(config.export_chunk_bytes),
            max_chunk_bytes: config.export_chunk_bytes,
            quick_chunk_bytes,
            quick_chunks: 0,
            chunk_rows: 0,
            metrics,
            wal_pressure,
        }
    }

    /// Runs until the rows end, or `offer` or `is_over` says so: one of them is asked after at most
    /// [`ROWS_A_LOOK`] rows were read, matching or not.
    ///
    /// `ahead` may have another thread scan a block of the rows that come later; it returns how to
    /// wait for them, or `None` where no thread is free.
    pub fn run<A: FnOnce() -> Result<Vec<Chunk>>>(
        &mut self,
        reader: &Reader,
        stop: &Stop,
        ahead: impl Fn(Block) -> Option<A>,
        is_over: impl Fn() -> bool,
        mut offer: impl FnMut(Chunk) -> Offer,
    ) -> Result<Turn> {
        while self.has_more() {
            let block = self.block_ahead();
            let (middle, end) = block.as_ref().map_or((None, 0), |b| (Some(b.after), b.until));
            let scanned = block.and_then(&ahead);
            self.quick_chunks = 0;
            let middle = middle.filter(|_| scanned.is_some());
            let pass = |conn: &Connection| {
                in_transaction(conn, |conn| self.pass(conn, middle, &is_over, &mut offer))
            };
            let end = match (reader.read(stop, pass)?, scanned) {
                (None, Some(scanned)) => self.offer_block(scanned()?, end, &mut offer),
                (end, _) => end,
            };
            if end == Some(PassEnd::Pause) {
                return Ok(Turn::Paused);
            }
        }
        Ok(Turn::Done)
    }

    fn has_more(&self) -> bool {
        self.remaining > 0 && (self.after < self.until || !self.hand.is_empty())
    }

    /// Rows to be scanned by another thread: as many as this one scans meanwhile, after those. `None`
    /// while the client is not known to be quicker than the scan, and where the rows of a range of
    /// sequences cannot be foretold.
    fn block_ahead(&self) -> Option<Block> {
        if self.quick_chunks < BLOCK_CHUNKS || self.filter != Filter::ALL {
            return None;
        }
        let span = self.chunk_rows * BLOCK_CHUNKS as i64;
        // Two ranges of so many sequences have twice as many rows at the most.
        if self.remaining < 2 * span + self.hand.len() as i64 {
            return None;
        }
        let after = self.after.checked_add(span)?;
        let until = after.saturating_add(span).min(self.until);
        let (chunk_bytes, metrics) = (self.chunk_bytes, Arc::clone(&self.metrics));
        (after < until).then_some(Block { after, until, chunk_bytes, metrics })
    }

    /// Offers what another thread has scanned, the rows up to `end` at the most.
    fn offer_block(
        &mut self,
        chunks: Vec<Chunk>,
        end: i64,
        offer: &mut impl FnMut(Chunk) -> Offer,
    ) -> Option<PassEnd> {
        let is_whole = chunks.len() < BLOCK_CHUNKS;
        let is_quick = self.quick_chunks >= BLOCK_CHUNKS / 2;
        for chunk in chunks {
            match self.offer(chunk, offer) {
                // Its chunks are there already, and none of them waits for a transaction.
                None | Some(PassEnd::NewTransaction) => {}
                stop => return stop,
            }
        }
        // The burst of these chunks makes one or two of the scan's own wait.
        self.quick_chunks = if is_quick { BLOCK_CHUNKS } else { 0 };
        if is_whole {
            self.after = end;
        }
        None
    }

    /// One transaction, up to `end` or to the end of the set; `None` when it got there.
    fn pass(
        &mut self,
        conn: &Connection,
        end: Option<i64>,
        is_over: &impl Fn() -> bool,
        offer: &mut impl FnMut(Chunk) -> Offer,
    ) -> Result<Option<PassEnd>> {
        let (is_alone, end) = (end.is_none(), end.unwrap_or(self.until));
        let (filter, hand) = (self.filter.clone(), std::mem::take(&mut self.hand));
        let range = Range { filter: &filter, after: self.after, until: end, most: self.remaining };
        let (metrics, bytes) = (Arc::clone(&self.metrics), self.chunk_bytes);
        let mut stopped = None;
        let rest = range.chunks(conn, hand, bytes, &metrics, |progress| {
            stopped = match progress {
                Progress::Full(chunk) => self.offer(chunk, offer),
                Progress::Read(sequence) => self.look(sequence, is_over),
            };
            if is_alone && stopped.is_none() && self.block_ahead().is_some() {
                stopped = Some(PassEnd::NewTransaction);
            }
            Ok(stopped.is_none().then_some(self.chunk_bytes))
        })?;
        if stopped.is_some() {
            self.hand = rest;
            return Ok(stopped);
        }
        if !rest.is_empty() {
            // Without a place for more rows of this transaction, a new one is as good.
            stopped = self.offer(rest, offer).filter(|stop| *stop == PassEnd::Pause);
        }
        if stopped.is_none() {
            // Where `max_rows` ended the scan, there is nothing up to the end of the set either.
            self.after = end;
        }
        Ok(stopped)
    }

    /// Comes up for air in the middle of a chunk, which stays in hand. All rows up to `after` were read.
    fn look(&mut self, after: i64, is_over: &impl Fn() -> bool) -> Option<PassEnd> {
        self.after = after;
        if is_over() {
            return Some(PassEnd::Pause);
        }
        self.wal_pressure.get().then_some(PassEnd::NewTransaction)
    }

    fn offer(&mut self, chunk: Chunk, offer: &mut impl FnMut(Chunk) -> Offer) -> Option<PassEnd> {
        let rows = chunk.len() as i64;
        let (before, last) = (chunk.sequence(0) - 1, chunk.last_sequence());
        let is_full = chunk.batch().len() >= self.max_chunk_bytes;
        let answer = offer(chunk);
        if answer == Offer::Refused {
            self.chunk_bytes = self.chunk_bytes.min(self.max_chunk_bytes);
            self.after = before;
            return Some(PassEnd::Pause);
        }
        self.after = last;
        self.remaining -= rows;
        if is_full {
            self.chunk_rows = rows;
            self.quick_chunks = if answer == Offer::Taken { self.quick_chunks + 1 } else { 0 };
        }
        let most = match self.quick_chunks >= BLOCK_CHUNKS {
            true => self.quick_chunk_bytes,
            // One or two chunks that wait do not make it slow; a pause does.
            false => self.max_chunk_bytes.max(self.chunk_bytes),
        };
        self.chunk_bytes = (self.chunk_bytes * 2).min(most);
        match answer {
            Offer::TakenLast => Some(PassEnd::Pause),
            _ if self.wal_pressure.get() => Some(PassEnd::NewTransaction),
            _ => None,
        }
    }
}

/// Why a pass ended before its rows did.
#[derive(Clone, Copy, PartialEq)]
enum PassEnd {
    Pause,
    NewTransaction,
}

/// Rows that another thread scans while the scan is still at those before them.
pub struct Block {
    after: i64,
    until: i64,
    chunk_bytes: usize,
    metrics: Arc<Metrics>,
}

impl Block {
    /// Its rows in at most [`BLOCK_CHUNKS`] chunks; if there are as many, there may be more rows.
    pub fn scan(&self, reader: &Reader, stop: &Stop) -> Result<Vec<Chunk>> {
        let Block { after, until, .. } = *self;
        let range = Range { filter: &Filter::ALL, after, until, most: i64::MAX };
        reader.read(stop, |conn| {
            let mut full = Vec::with_capacity(BLOCK_CHUNKS);
            let (hand, bytes) = (Chunk::default(), self.chunk_bytes);
            let rest = range.chunks(conn, hand, bytes, &self.metrics, |progress| {
                if let Progress::Full(chunk) = progress {
                    full.push(chunk);
                }
                Ok((full.len() < BLOCK_CHUNKS).then_some(bytes))
            })?;
            if !rest.is_empty() {
                full.push(rest);
            }
            Ok(full)
        })
    }
}

/// Rows between two moments at which a scan lets another thread have the core, if one waits: some 40
/// microseconds, where the scheduler's slices are of milliseconds. (`load ADDR beside` of benches/compare: p99
/// of a unary call beside 8 exports 1.4 ms with 32, 1.7 ms with 128, 2.2 ms with 512. A yield takes half a
/// microsecond: 5 % of the scan with 32, `cargo bench --bench floors`, in_chunks.)
const ROWS_A_YIELD: usize = 128;

/// Rows to be read: those of a range of sequences.
struct Range<'a> {
    filter: &'a Filter,
    after: i64,
    /// Included.
    until: i64,
    /// The most rows that match.
    most: i64,
}

/// How far the reading of a [`Range`] is.
enum Progress {
    /// These are all rows that match, since the last full chunk.
    Full(Chunk),
    /// [`ROWS_A_LOOK`] rows up to this sequence were read, and the chunk is not full.
    Read(i64),
}

impl Range<'_> {
    /// Gives the rows to `each` in chunks of `bytes`, or of what it returned last, until it returns `None`.
    /// The first begins with `hand`. Returns the rows after the last full chunk.
    fn chunks(
        self,
        conn: &Connection,
        mut hand: Chunk,
        mut bytes: usize,
        metrics: &Metrics,
        mut each: impl FnMut(Progress) -> Result<Option<usize>>,
    ) -> Result<Chunk> {
        hand.reserve(bytes + 512);
        let (mut read, mut left) = (0, self.most);
        let range = (self.after, self.until);
        let rest = push_invoices(conn, self.filter, range, hand, |chunk, row| {
            read += 1;
            if read % ROWS_A_YIELD == 0 {
                std::thread::yield_now();
            }
            let is_last = chunk.len() as i64 == left;
            let progress = if chunk.batch().len() >= bytes {
                left -= chunk.len() as i64;
                Progress::Full(std::mem::take(chunk))
            } else if read >= ROWS_A_LOOK && !is_last {
                Progress::Read(sequence(chunk, row)?)
            } else {
                return Ok(!is_last);
            };
            metrics.rows_scanned.add(std::mem::take(&mut read) as u64);
            let next = each(progress)?;
            bytes = next.unwrap_or(0);
            if next.is_some() {
                chunk.reserve(bytes + 512);
            }
            Ok(next.is_some() && !is_last)
        })?;
        metrics.rows_scanned.add(read as u64);
        Ok(rest)
    }
}

#[cfg(test)]
mod tests;
