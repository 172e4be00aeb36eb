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
use crate::store::encode::Chunk;
use crate::store::read::{in_transaction, push_invoices, Reader};

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

/// The progress of one export. Between turns it holds a cursor and nothing of SQLite.
pub struct Scan {
    filter: Filter,
    /// The last sequence that was taken, or that is known to be no row of the set.
    after: i64,
    /// The last sequence of the set; fixed when the call starts.
    until: i64,
    /// Rows still to be taken; -1: all.
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
    /// Of the rows with `after < sequence <= until`. `max_rows` 0: all. `quick_chunk_bytes` is
    /// `export_chunk_bytes` or more.
    pub fn new(
        filter: Filter,
        (after, until): (i64, i64),
        max_rows: i64,
        quick_chunk_bytes: usize,
        config: &Config,
        metrics: Arc<Metrics>,
        wal_pressure: WalPressure,
    ) -> Scan {
        Scan {
            filter,
            after,
            until,
            remaining: if max_rows == 0 { -1 } else { max_rows },
            chunk_bytes: config.export_first_chunk_bytes.min(config.export_chunk_bytes),
            max_chunk_bytes: config.export_chunk_bytes,
            quick_chunk_bytes,
            quick_chunks: 0,
            chunk_rows: 0,
            metrics,
            wal_pressure,
        }
    }

    /// Runs until the rows end or `offer` says so.
    ///
    /// `ahead` may have another thread scan a block of the rows that come later; it returns how to
    /// wait for them, or `None` where no thread is free.
    pub fn run<A: FnOnce() -> Result<Vec<Chunk>>>(
        &mut self,
        reader: &Reader,
        stop: &Stop,
        ahead: impl Fn(Block) -> Option<A>,
        mut offer: impl FnMut(Chunk) -> Offer,
    ) -> Result<Turn> {
        loop {
            let block = self.block_ahead();
            let (middle, end) = block.as_ref().map_or((None, 0), |b| (Some(b.after), b.until));
            let scanned = block.and_then(&ahead);
            self.quick_chunks = 0;
            let middle = middle.filter(|_| scanned.is_some());
            let pass = |conn: &Connection| {
                in_transaction(conn, |conn| self.pass(conn, middle, &mut offer))
            };
            let end = match (reader.read(stop, pass)?, scanned) {
                (None, Some(scanned)) => self.offer_block(scanned()?, end, &mut offer),
                (end, _) => end,
            };
            match end {
                Some(PassEnd::Pause) => return Ok(Turn::Paused),
                Some(PassEnd::NewTransaction) => {}
                None if self.after < self.until => {}
                None => return Ok(Turn::Done),
            }
        }
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
        if self.remaining >= 0 && self.remaining < 2 * span {
            return None;
        }
        let (after, last) = (self.after.checked_add(span)?, self.until);
        let until = after.saturating_add(span).min(last);
        (after < last).then_some(Block { after, until, chunk_bytes: self.chunk_bytes })
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
        offer: &mut impl FnMut(Chunk) -> Offer,
    ) -> Result<Option<PassEnd>> {
        let (is_alone, end) = (end.is_none(), end.unwrap_or(self.until));
        let filter = self.filter.clone();
        let mut stopped = None;
        let range = (self.after, end, self.remaining);
        let rest = chunks(conn, &filter, range, self.chunk_bytes, |chunk| {
            stopped = self.offer(chunk, offer);
            if is_alone && stopped.is_none() && self.block_ahead().is_some() {
                stopped = Some(PassEnd::NewTransaction);
            }
            Ok(stopped.is_none().then_some(self.chunk_bytes))
        })?;
        if stopped.is_none() && !rest.is_empty() {
            // Without a place for more rows of this transaction, a new one is as good.
            stopped = self.offer(rest, offer).filter(|stop| *stop == PassEnd::Pause);
        }
        if stopped.is_none() {
            // Where `max_rows` ended the scan, there is nothing up to the end of the set either.
            self.after = end;
        }
        Ok(stopped)
    }

    fn offer(&mut self, chunk: Chunk, offer: &mut impl FnMut(Chunk) -> Offer) -> Option<PassEnd> {
        let (rows, last) = (chunk.len() as i64, chunk.last_sequence());
        let is_full = chunk.batch().len() >= self.max_chunk_bytes;
        self.metrics.rows_scanned.add(rows as u64);
        let answer = offer(chunk);
        if answer == Offer::Refused {
            self.chunk_bytes = self.chunk_bytes.min(self.max_chunk_bytes);
            return Some(PassEnd::Pause);
        }
        self.after = last;
        self.remaining -= if self.remaining > 0 { rows } else { 0 };
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
            // `LIMIT 0` would be a new transaction for nothing.
            _ if self.wal_pressure.get() && self.remaining != 0 => Some(PassEnd::NewTransaction),
            _ => None,
        }
    }
}

/// Why a pass ended before its rows did.
#[derive(PartialEq)]
enum PassEnd {
    Pause,
    NewTransaction,
}

/// Rows that another thread scans while the scan is still at those before them.
pub struct Block {
    after: i64,
    until: i64,
    chunk_bytes: usize,
}

impl Block {
    /// Its rows in at most [`BLOCK_CHUNKS`] chunks; if there are as many, there may be more rows.
    pub fn scan(&self, reader: &Reader, stop: &Stop) -> Result<Vec<Chunk>> {
        reader.read(stop, |conn| {
            let mut full = Vec::with_capacity(BLOCK_CHUNKS);
            let range = (self.after, self.until, -1);
            let rest = chunks(conn, &Filter::ALL, range, self.chunk_bytes, |chunk| {
                full.push(chunk);
                Ok((full.len() < BLOCK_CHUNKS).then_some(self.chunk_bytes))
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

/// Gives rows to `each` in chunks of `bytes`, or of what it returned last, until it returns `None`.
/// Returns the rows after the last full chunk; none where it returned `None`.
fn chunks(
    conn: &Connection,
    filter: &Filter,
    range: (i64, i64, i64),
    mut bytes: usize,
    mut each: impl FnMut(Chunk) -> Result<Option<usize>>,
) -> Result<Chunk> {
    push_invoices(conn, filter, range, Chunk::with_capacity(bytes + 512), |chunk| {
        if chunk.len().is_multiple_of(ROWS_A_YIELD) {
            std::thread::yield_now();
        }
        if chunk.batch().len() < bytes {
            return Ok(true);
        }
        let next = each(std::mem::take(chunk))?;
        bytes = next.unwrap_or(0);
        if next.is_some() {
            *chunk = Chunk::with_capacity(bytes + 512);
        }
        Ok(next.is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use proptest::prelude::*;
    use rusqlite::params;

    /// A database whose invoices have these sequences.
    fn database(sequences: &[i64]) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            db: dir.path().join("bills.db"),
            export_first_chunk_bytes: 100,
            export_chunk_bytes: 200,
            ..Config::default()
        };
        let (_, thread) = Store::open(&config, &Arc::default()).unwrap();
        thread.stop();
        let mut conn = Connection::open(&config.db).unwrap();
        let transaction = conn.transaction().unwrap();
        for sequence in sequences {
            let insert = "INSERT INTO invoices VALUES (?1, ?1, 'c', 1, 'EUR', 1, 0, 0, 0, ?2)";
            let memo = "m".repeat((sequence % 7) as usize * 9);
            transaction.execute(insert, params![sequence, memo]).unwrap();
        }
        transaction.commit().unwrap();
        (dir, config)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the gaps, the answers to offers, and the blocks that found a thread: each row
        /// comes once, in order.
        #[test]
        fn blocks_ahead_change_nothing(
            gaps in prop::collection::vec(prop_oneof![9 => Just(1i64), 1 => 1..400i64], 1..600),
            answers in prop::collection::vec(0..40u8, 1..30),
            free in prop::collection::vec(any::<bool>(), 1..5),
            after in 0..50i64,
            max_rows in prop_oneof![3 => Just(0i64), 1 => 1..700i64],
            quick in 200..900usize,
        ) {
            let sequences: Vec<i64> =
                gaps.iter().scan(0, |last, gap| { *last += gap; Some(*last) }).collect();
            let (_dir, config) = database(&sequences);
            let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
            let pressure = WalPressure::default();
            let until = *sequences.last().unwrap();
            let mut scan =
                Scan::new(Filter::ALL, (after, until), max_rows, quick, &config, Arc::default(), pressure);
            let (mut seen, mut offers, blocks) = (Vec::new(), 0, std::cell::Cell::new(0));
            let ahead = |block: Block| {
                blocks.set(blocks.get() + 1);
                let reader = store.reader.clone();
                free[blocks.get() % free.len()].then_some(move || block.scan(&reader, &Stop::default()))
            };
            loop {
                let turn = scan.run(&store.reader, &Stop::default(), ahead, |chunk| {
                    offers += 1;
                    let answer = answers[offers % answers.len()];
                    if answer == 0 && offers % 2 == 0 {
                        return Offer::Refused;
                    }
                    seen.extend((0..chunk.len()).map(|i| chunk.sequence(i)));
                    match answer {
                        1 => Offer::TakenLast,
                        2 | 3 => Offer::TakenLate,
                        _ => Offer::Taken,
                    }
                });
                if turn.unwrap() == Turn::Done {
                    break;
                }
            }
            let most = if max_rows == 0 { usize::MAX } else { max_rows as usize };
            let expected: Vec<_> =
                sequences.iter().copied().filter(|s| *s > after).take(most).collect();
            thread.stop();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_quick_client_has_blocks_scanned_ahead() {
        let (_dir, config) = database(&(1..=2000).collect::<Vec<_>>());
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let blocks = std::cell::Cell::new(0);
        let run = |offer: fn(Chunk) -> Offer| {
            let mut scan = Scan::new(
                Filter::ALL,
                (0, 2000),
                0,
                200,
                &config,
                Arc::default(),
                WalPressure::default(),
            );
            let ahead = |block: Block| {
                blocks.set(blocks.get() + 1);
                let reader = store.reader.clone();
                Some(move || block.scan(&reader, &Stop::default()))
            };
            scan.run(&store.reader, &Stop::default(), ahead, offer).unwrap();
            blocks.take()
        };
        assert!(run(|_| Offer::Taken) > 10);
        assert_eq!(run(|_| Offer::TakenLate), 0);
        thread.stop();
    }

    #[test]
    fn a_client_that_is_quick_has_larger_chunks_until_it_pauses() {
        let (_dir, config) = database(&(1..=2000).collect::<Vec<_>>());
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let no_block = |_: Block| None::<fn() -> Result<Vec<Chunk>>>;
        let sizes = |offer: fn(usize) -> Offer| {
            let pressure = WalPressure::default();
            let mut scan =
                Scan::new(Filter::ALL, (0, 2000), 0, 400, &config, Arc::default(), pressure);
            let mut sizes = Vec::new();
            let mut take = |chunk: Chunk| {
                sizes.push(chunk.batch().len());
                offer(sizes.len())
            };
            while scan.run(&store.reader, &Stop::default(), no_block, &mut take).unwrap()
                != Turn::Done
            {}
            sizes
        };
        // A row of them has at most 100 bytes.
        let is_large = |size: &usize| (400..500).contains(size);
        let is_small = |size: &usize| *size < 300;
        assert!(sizes(|_| Offer::TakenLate).iter().all(is_small));
        let quick = sizes(|i| if i == 30 { Offer::Refused } else { Offer::Taken });
        assert!(quick[20..30].iter().all(is_large), "{quick:?}");
        assert!(quick[30..35].iter().all(is_small), "{quick:?}");
        assert!(quick[50..60].iter().all(is_large), "{quick:?}");
        thread.stop();
    }
}
