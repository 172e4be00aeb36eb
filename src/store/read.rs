//! Reading: a pool of read-only connections, and the queries of the unary calls.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::types::ValueRef;
pub use rusqlite::Connection;
use rusqlite::{named_params, OpenFlags, Row};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{CurrencyTotal, Filter, Summary};
use crate::stop::Stop;
use crate::store::encode::{add_push_invoice, push_rows, Chunk};
use crate::store::open::set_pragmas;
use crate::store::sql;

/// Virtual machine instructions between two looks at whether a statement is still wanted: about
/// 20 microseconds of work.
const PROGRESS_INSTRUCTIONS: i32 = 1000;

/// Read-only access to the database, for threads that may block.
#[derive(Clone)]
pub struct Reader {
    /// `None` once it was closed.
    pool: Arc<RwLock<Option<Pool>>>,
    busy_timeout: Duration,
}

/// How long all connections may take to open, beside `busy_timeout_ms`, which may be nothing.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

type Pool = r2d2::Pool<SqliteConnectionManager>;

impl Reader {
    /// Opens all connections at once, one for each thread that reads, so that none ever waits for
    /// another's.
    pub fn open(path: &Path, config: &Config) -> Result<Reader> {
        let settings = config.clone();
        let manager = SqliteConnectionManager::file(path)
            .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .with_init(move |conn| {
                set_pragmas(conn, &settings)?;
                add_push_invoice(conn)?;
                // Sorting needs no disk, so a full one does not stop reads.
                conn.pragma_update(None, "temp_store", "memory")
            });
        let busy_timeout = Duration::from_millis(config.busy_timeout_ms);
        let pool = r2d2::Pool::builder()
            .max_size((config.cq_threads + config.unary_workers + config.export_workers) as u32)
            .connection_timeout(OPEN_TIMEOUT + busy_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::LoggingErrorHandler))
            .build(manager)
            .map_err(|e| Error::Unusable(format!("cannot read {}: {e}", path.display())))?;
        Ok(Reader { pool: Arc::new(RwLock::new(Some(pool))), busy_timeout })
    }

    /// Connections that are checked out.
    pub fn connections_in_use(&self) -> u32 {
        self.pool().map_or(0, |pool| {
            let state = pool.state();
            state.connections - state.idle_connections
        })
    }

    /// Closes the connections, each as soon as it is given back. It is for the end of the server:
    /// the writer then closes the last one, and SQLite removes its log.
    pub fn close(&self) {
        self.pool.write().unwrap_or_else(|e| e.into_inner()).take();
    }

    fn pool(&self) -> Option<Pool> {
        self.pool.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Runs `read` with a connection. Its statements fail soon after `stop`, and the error is its reason.
    pub fn read<T>(&self, stop: &Stop, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let pool = self
            .pool()
            .ok_or_else(|| Error::Unavailable("the server is shutting down".to_owned()))?;
        let conn = pool
            .get()
            .map_err(|e| Error::Unavailable(format!("no database connection is free: {e}")))?;
        let watched = stop.clone();
        conn.progress_handler(PROGRESS_INSTRUCTIONS, Some(move || watched.is_stopped()))?;
        let _unwatched = Unwatched(&conn);
        // What SQLite calls it when it is interrupted is of no interest, only why it was.
        read(&conn).map_err(|error| stop.reason().map_or(error, Error::from))
    }

    /// [`Reader::read`] for a thread that must not wait: `None` when no connection is free, or another
    /// process has the database locked. `read` must be bounded by the rows that it returns.
    pub fn read_now<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        let Some(conn) = self.pool().and_then(|pool| pool.try_get()) else { return Ok(None) };
        conn.busy_timeout(Duration::ZERO)?;
        let result = read(&conn);
        conn.busy_timeout(self.busy_timeout)?;
        match result {
            Err(Error::Unavailable(_)) => Ok(None),
            result => result.map(Some),
        }
    }
}

/// Takes the progress handler off a connection, also when what reads panics.
struct Unwatched<'a>(&'a Connection);

impl Drop for Unwatched<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.progress_handler(0, None::<fn() -> bool>) {
            log::error!("a progress handler stays: {error}");
        }
    }
}

/// Runs `read` in one read transaction, for statements that are to see the same moment. (A statement
/// alone is a transaction of its own.)
pub fn in_transaction<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    // First: a statement that was interrupted at its end has begun the transaction nevertheless.
    let _end = EndOfTransaction(conn);
    conn.prepare_cached("BEGIN")?.execute([])?;
    read(conn)
}

/// Ends a read transaction, also when what reads panics. (rusqlite's own would prepare its statements
/// anew each time.)
struct EndOfTransaction<'a>(&'a Connection);

impl Drop for EndOfTransaction<'_> {
    fn drop(&mut self) {
        // First, because what interrupts a statement would interrupt the end too.
        drop(Unwatched(self.0));
        if self.0.is_autocommit() {
            return;
        }
        let end = self.0.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([]));
        if let Err(error) = end {
            log::error!("a read transaction does not end: {error}");
        }
    }
}

/// Counts and sums by currency, and the highest sequence. Of `filter`, the customer and the dates.
pub fn summary(conn: &Connection, filter: &Filter) -> Result<Summary> {
    if filter.customer_id.is_empty() && !filter.has_dates() {
        return summary_of_all(conn);
    }
    in_transaction(conn, |conn| summary_of_some(conn, filter))
}

/// In one statement: this is the call that is made most.
fn summary_of_all(conn: &Connection) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut statement = conn.prepare_cached(sql::SUMMARY)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        summary.last_sequence = row.get(4)?;
        // Where there is none, there is no invoice.
        if row.get_ref(0)? != ValueRef::Null {
            summary.totals.push(total(row)?);
        }
    }
    Ok(summary)
}

fn summary_of_some(conn: &Connection, filter: &Filter) -> Result<Summary> {
    let dates = named_params! {
        ":from": filter.issued_from.seconds, ":from_nanos": filter.issued_from.nanos,
        ":before": filter.issued_until.seconds, ":before_nanos": filter.issued_until.nanos,
    };
    let mut params = Vec::new();
    if !filter.customer_id.is_empty() {
        params.push((":customer_id", &filter.customer_id as &dyn rusqlite::ToSql));
    }
    if filter.has_dates() {
        params.extend_from_slice(dates);
    }
    let statement = match (filter.customer_id.is_empty(), filter.has_dates()) {
        (true, _) => sql::SUMMARY_BY_DATE,
        (false, false) => sql::SUMMARY_BY_CUSTOMER,
        (false, true) => sql::SUMMARY_BY_CUSTOMER_AND_DATE,
    };
    Ok(Summary {
        totals: totals(conn, statement, &params[..])?,
        last_sequence: last_sequence(conn)?,
    })
}

/// The rows of a statement that gives currency, count, total and paid.
pub fn totals(
    conn: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<CurrencyTotal>> {
    let mut statement = conn.prepare_cached(statement)?;
    let totals = statement.query_map(params, total)?.collect::<rusqlite::Result<_>>()?;
    Ok(totals)
}

fn total(row: &Row<'_>) -> rusqlite::Result<CurrencyTotal> {
    Ok(CurrencyTotal {
        currency: row.get(0)?,
        invoice_count: row.get(1)?,
        total_cents: row.get(2)?,
        paid_cents: row.get(3)?,
    })
}

/// The highest sequence that was ever given.
pub fn last_sequence(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached(sql::LAST_SEQUENCE)?.query_row([], |row| row.get(0))?)
}

/// Encodes the rows that match `filter` with `after < sequence <= until`, in the order of `sequence`, at
/// most `limit` of them (-1: all). They come to `chunk`, as in [`push_rows`].
pub fn push_invoices(
    conn: &Connection,
    filter: &Filter,
    (after, until, limit): (i64, i64, i64),
    chunk: Chunk,
    each: impl FnMut(&mut Chunk) -> Result<bool>,
) -> Result<Chunk> {
    let mut statement;
    let mut rows = if *filter == Filter::ALL {
        statement = conn.prepare_cached(sql::INVOICES_AFTER)?;
        statement.query(named_params! { ":after": after, ":until": until, ":limit": limit })?
    } else if filter.customer_id.is_empty() {
        statement = conn.prepare_cached(sql::INVOICES_AFTER_FILTERED)?;
        statement.query(named_params! {
            ":after": after, ":until": until, ":limit": limit, ":statuses": filter.statuses,
            ":from": filter.issued_from.seconds, ":from_nanos": filter.issued_from.nanos,
            ":before": filter.issued_until.seconds, ":before_nanos": filter.issued_until.nanos,
        })?
    } else {
        statement = conn.prepare_cached(sql::INVOICES_AFTER_BY_CUSTOMER)?;
        statement.query(named_params! {
            ":customer_id": filter.customer_id,
            ":after": after, ":until": until, ":limit": limit, ":statuses": filter.statuses,
            ":from": filter.issued_from.seconds, ":from_nanos": filter.issued_from.nanos,
            ":before": filter.issued_until.seconds, ":before_nanos": filter.issued_until.nanos,
        })?
    };
    push_rows(&mut rows, chunk, each)
}

/// A page of at most `size` invoices after a cursor, and whether there are more after it.
pub fn page(conn: &Connection, filter: &Filter, after: i64, size: usize) -> Result<(Chunk, bool)> {
    let range = (after, i64::MAX, size as i64 + 1);
    let mut page = push_invoices(conn, filter, range, Chunk::default(), |_| Ok(true))?;
    let more = page.len() > size;
    if more {
        page.pop();
    }
    Ok((page, more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Reason;
    use crate::store::Store;

    /// SQLite counts a statement's instructions over all its runs, so that any of them may be the one
    /// at which it looks whether it is still wanted: the beginning and the end of a transaction too.
    #[test]
    fn an_interrupted_transaction_leaves_its_connection_free() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let (wanted, unwanted) = (Stop::default(), Stop::default());
        unwanted.stop(Reason::ClientGone);
        let read = |is_unwanted: bool| {
            let read = |conn: &Connection| in_transaction(conn, last_sequence);
            store.reader.read(if is_unwanted { &unwanted } else { &wanted }, read)
        };
        let mut interrupted = 0;
        for i in 0..3000 {
            // Of three, so that whatever a statement takes it is looked at under both.
            let is_unwanted = i % 3 != 0;
            match read(is_unwanted) {
                Err(Error::Cancelled) if is_unwanted => interrupted += 1,
                result => assert_eq!(result, Ok(0)),
            }
        }
        assert!(interrupted > 0);
        thread.stop();
    }
}
