//! Exports: the rows of a range, in chunks.

use rusqlite::{named_params, Connection, Row};

use crate::error::Result;
use crate::metrics::Metrics;
use crate::store::encode::Chunk;
use crate::store::scan::{Progress, Range, Source, ROWS_A_LOOK};
use crate::store::sqlite::push::{push_rows, sequence};
use crate::store::sqlite::read::push_invoices;
use crate::store::sqlite::sql;

/// Rows between two moments at which a scan lets another thread have the core, if one waits: some 40
/// microseconds, where the scheduler's slices are of milliseconds. (`load ADDR beside` of benches/compare: p99
/// of a unary call beside 8 exports 1.4 ms with 32, 1.7 ms with 128, 2.2 ms with 512. A yield takes half a
/// microsecond: 5 % of the scan with 32, `cargo bench --bench floors`, in_chunks.)
const ROWS_A_YIELD: usize = 128;

/// Gives the rows of `range` to `each` in chunks of `bytes`, or of what it returned last, until it returns
/// `None`. The first begins with `hand`. Returns the rows after the last full chunk.
pub fn chunks(
    conn: &Connection,
    range: Range<'_>,
    mut hand: Chunk,
    mut bytes: usize,
    metrics: &Metrics,
    mut each: impl FnMut(Progress) -> Result<Option<usize>>,
) -> Result<Chunk> {
    hand.reserve(bytes + 512);
    let (mut read, mut left) = (0, range.most);
    let sequences = (range.after, range.until);
    let rest = push_source(conn, range.source, sequences, hand, |chunk, row| {
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

/// Encodes the rows of `source` with `after < sequence <= until`, as [`push_invoices`] does.
fn push_source(
    conn: &Connection,
    source: &Source,
    (after, until): (i64, i64),
    chunk: Chunk,
    each: impl FnMut(&mut Chunk, &Row<'_>) -> Result<bool>,
) -> Result<Chunk> {
    let filter = match source {
        Source::Invoices(filter) => filter,
        Source::Events => {
            let mut statement = conn.prepare_cached(sql::EVENTS_AFTER)?;
            let events = named_params! { ":after": after, ":until": until };
            return push_rows(&mut statement.query(events)?, chunk, each);
        }
    };
    push_invoices(conn, filter, (after, until), chunk, each)
}
