//! A scan that can wait: it yields chunks of encoded rows, stops where it is told to, and goes on
//! from there, on another connection and in another transaction.

use crate::config::{Config, BLOCK_CHUNKS};
use crate::error::Result;
use crate::model::Filter;
use crate::stop::Stop;
use crate::store::encode::Chunk;
use crate::store::Store;

/// Rows that are read, matching or not, before who reads them looks whether to go on: half a millisecond of
/// work on rows in memory. A full chunk of an export has fewer.
pub const ROWS_A_LOOK: usize = 1024;

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

/// Whose rows are scanned, each with a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Invoices(Filter),
    /// Those of the ledger.
    Events,
}

impl Source {
    fn is_whole(&self) -> bool {
        match self {
            Source::Invoices(filter) => *filter == Filter::ALL,
            Source::Events => true,
        }
    }
}

/// The rows of an export.
#[derive(Clone, Debug)]
pub struct Set {
    pub source: Source,
    /// Only rows with a higher sequence.
    pub after: i64,
    /// The last sequence of the set.
    pub until: i64,
    /// The most rows; 0: all.
    pub max_rows: i64,
}

/// The progress of one export. Between turns it holds a cursor, the rows that it has found for a chunk that
/// is not full, and nothing of the database.
pub struct Scan {
    store: Store,
    source: Source,
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
}

/// The sizes of chunks, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct ChunkBytes {
    first: usize,
    most: usize,
}

impl ChunkBytes {
    pub fn of(config: &Config) -> ChunkBytes {
        let most = config.export_chunk_bytes;
        ChunkBytes { first: config.export_first_chunk_bytes.min(most), most }
    }
}

/// What another thread may do for a scan.
pub type Ahead = Box<dyn FnOnce() -> Result<Vec<Chunk>> + Send>;

impl Scan {
    pub(super) fn new(
        store: Store,
        set: Set,
        chunk_bytes: ChunkBytes,
        quick_chunk_bytes: usize,
    ) -> Scan {
        Scan {
            store,
            source: set.source,
            after: set.after,
            hand: Chunk::default(),
            until: set.until,
            remaining: if set.max_rows == 0 { i64::MAX } else { set.max_rows },
            chunk_bytes: chunk_bytes.first,
            max_chunk_bytes: chunk_bytes.most,
            quick_chunk_bytes,
            quick_chunks: 0,
            chunk_rows: 0,
        }
    }

    /// Runs until the rows end, or `offer` or `is_over` says so: one of them is asked after at most
    /// [`ROWS_A_LOOK`] rows were read, matching or not.
    ///
    /// `fork` may have another thread scan a block of the rows that come later; it returns how to
    /// wait for them, or `None` where no thread is free. After `stop` the turn soon fails, with its reason.
    pub fn turn<A: FnOnce() -> Result<Vec<Chunk>>>(
        &mut self,
        stop: &Stop,
        fork: impl Fn(Ahead) -> Option<A>,
        is_over: impl Fn() -> bool,
        mut offer: impl FnMut(Chunk) -> Offer,
    ) -> Result<Turn> {
        while self.has_more() {
            let block = self.block_ahead();
            let (middle, end) = block.as_ref().map_or((None, 0), |b| (Some(b.after), b.until));
            let scanned = block.and_then(|block| fork(block.ahead(&self.store, stop)));
            self.quick_chunks = 0;
            let middle = middle.filter(|_| scanned.is_some());
            let end = match (self.pass(stop, middle, &is_over, &mut offer)?, scanned) {
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
        if self.quick_chunks < BLOCK_CHUNKS || !self.source.is_whole() {
            return None;
        }
        let span = self.chunk_rows * BLOCK_CHUNKS as i64;
        // Two ranges of so many sequences have twice as many rows at the most.
        if self.remaining < 2 * span + self.hand.len() as i64 {
            return None;
        }
        let after = self.after.checked_add(span)?;
        let until = after.saturating_add(span).min(self.until);
        let (source, chunk_bytes) = (self.source.clone(), self.chunk_bytes);
        (after < until).then_some(Block { source, after, until, chunk_bytes })
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
        stop: &Stop,
        end: Option<i64>,
        is_over: &impl Fn() -> bool,
        offer: &mut impl FnMut(Chunk) -> Offer,
    ) -> Result<Option<PassEnd>> {
        let (is_alone, end) = (end.is_none(), end.unwrap_or(self.until));
        let (source, hand) = (self.source.clone(), std::mem::take(&mut self.hand));
        let range = Range { source: &source, after: self.after, until: end, most: self.remaining };
        let (store, bytes) = (self.store.clone(), self.chunk_bytes);
        let mut stopped = None;
        let rest = store.database().chunks(stop, range, hand, bytes, |progress| {
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
        self.store.database().wants_new_transaction().then_some(PassEnd::NewTransaction)
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
            _ if self.store.database().wants_new_transaction() => Some(PassEnd::NewTransaction),
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
struct Block {
    source: Source,
    after: i64,
    until: i64,
    chunk_bytes: usize,
}

impl Block {
    fn ahead(self, store: &Store, stop: &Stop) -> Ahead {
        let (store, stop) = (store.clone(), stop.clone());
        Box::new(move || self.scan(&store, &stop))
    }

    /// Its rows in at most [`BLOCK_CHUNKS`] chunks; if there are as many, there may be more rows.
    fn scan(&self, store: &Store, stop: &Stop) -> Result<Vec<Chunk>> {
        let Block { ref source, after, until, chunk_bytes } = *self;
        let range = Range { source, after, until, most: i64::MAX };
        let mut full = Vec::with_capacity(BLOCK_CHUNKS);
        let each = |progress| {
            if let Progress::Full(chunk) = progress {
                full.push(chunk);
            }
            Ok((full.len() < BLOCK_CHUNKS).then_some(chunk_bytes))
        };
        let rest = store.database().chunks(stop, range, Chunk::default(), chunk_bytes, each)?;
        if !rest.is_empty() {
            full.push(rest);
        }
        Ok(full)
    }
}

/// Rows to be read: those of a range of sequences.
pub struct Range<'a> {
    pub source: &'a Source,
    pub after: i64,
    /// Included.
    pub until: i64,
    /// The most rows that match.
    pub most: i64,
}

/// How far the reading of a [`Range`] is.
pub enum Progress {
    /// These are all rows that match, since the last full chunk.
    Full(Chunk),
    /// [`ROWS_A_LOOK`] rows up to this sequence were read, and the chunk is not full.
    Read(i64),
}

#[cfg(test)]
mod tests;
