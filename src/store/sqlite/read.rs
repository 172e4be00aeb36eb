//! Reading: a pool of read-only connections, the invoices after a cursor, and pages of them.

use std::path::Path;
use std::sync::{mpsc, Arc, RwLock};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{named_params, Connection, OpenFlags, Row};
use scheduled_thread_pool::ScheduledThreadPool;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::{Interrupted, Metrics};
use crate::model::Filter;
use crate::stop::Stop;
use crate::store::encode::Chunk;
use crate::store::scan::ROWS_A_LOOK;
use crate::store::sqlite::guard::Malformed;
use crate::store::sqlite::open::set_pragmas;
use crate::store::sqlite::push::{add_push_functions, push_rows, sequence};
use crate::store::sqlite::sql;
use crate::store::Wait;

/// Virtual machine instructions between two looks at whether a statement is still wanted: about
/// 20 microseconds of work.
const PROGRESS_INSTRUCTIONS: i32 = 1000;

/// Read-only access to the database, for threads that may block.
#[derive(Clone)]
pub struct Reader {
    /// `None` once it was closed.
    pool: Arc<RwLock<Option<Pool>>>,
    busy_timeout: Duration,
    /// What reads find, and the writer is to know of.
    pub malformed: Malformed,
    metrics: Arc<Metrics>,
}

/// How long all connections may take to open, beside `busy_timeout_ms`, which may be nothing.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

type Pool = r2d2::Pool<SqliteConnectionManager>;

impl Reader {
    /// Opens all connections at once, one for each thread that reads, so that none ever waits for
    /// another's.
    pub fn open(path: &Path, config: &Config, metrics: &Arc<Metrics>) -> Result<Reader> {
        let settings = config.clone();
        let manager = SqliteConnectionManager::file(path)
            .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .with_init(move |conn| {
                set_pragmas(conn, &settings)?;
                add_push_functions(conn)?;
                // Sorting needs no disk, so a full one does not stop reads.
                conn.pragma_update(None, "temp_store", "memory")
            });
        let busy_timeout = Duration::from_millis(config.busy_timeout_ms);
        let opener = ScheduledThreadPool::builder().num_threads(1);
        let opener = Arc::new(opener.thread_name_pattern("billstream-pool").build());
        let pool = r2d2::Pool::builder()
            .thread_pool(Arc::clone(&opener))
            .max_size(config.reader_connections() as u32)
            .connection_timeout(OPEN_TIMEOUT + busy_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::LoggingErrorHandler))
            .build(manager);
        // The thread that opens them holds the pool for a moment longer than `build` takes. A process that ended
        // meanwhile would leave one of them open, and with it the log.
        let (done, is_done) = mpsc::channel::<()>();
        opener.execute(move || drop(done));
        // OK because the word is that the sender is gone.
        let _ = is_done.recv();
        let pool =
            pool.map_err(|e| Error::Unusable(format!("cannot read {}: {e}", path.display())))?;
        let pool = Arc::new(RwLock::new(Some(pool)));
        let metrics = Arc::clone(metrics);
        Ok(Reader { pool, busy_timeout, malformed: Malformed::default(), metrics })
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

    /// Runs `read` with a connection, as `wait` says. `read` must be bounded by the rows that it returns where
    /// it must not wait.
    pub fn read<T>(
        &self,
        wait: Wait<'_>,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let busy = || Error::Unavailable("no database connection is free".to_owned());
        match wait {
            Wait::No => self.read_now(read)?.ok_or_else(busy),
            Wait::Until(stop) => self.read_until(stop, read),
        }
    }

    /// Its statements fail soon after `stop`, and the error is its reason.
    pub fn read_until<T>(
        &self,
        stop: &Stop,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
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
        self.noted(read(&conn)).map_err(|error| {
            let Some(reason) = stop.reason() else { return error };
            self.metrics.sql_interrupted.of(Interrupted::from(&reason)).add(1);
            reason.into()
        })
    }

    /// [`Reader::read`] for a thread that must not wait: `None` when no connection is free, or another
    /// process has the database locked.
    pub fn read_now<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        let Some(conn) = self.pool().and_then(|pool| pool.try_get()) else { return Ok(None) };
        conn.busy_timeout(Duration::ZERO)?;
        let result = read(&conn);
        conn.busy_timeout(self.busy_timeout)?;
        match self.noted(result) {
            Err(Error::Unavailable(_)) => Ok(None),
            result => result.map(Some),
        }
    }

    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.malformed.note(error))
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

/// The highest sequence that was ever given.
pub fn last_sequence(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached(sql::LAST_SEQUENCE)?.query_row([], |row| row.get(0))?)
}

/// The highest event_sequence that was ever given.
pub fn last_event_sequence(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached(sql::LAST_EVENT_SEQUENCE)?.query_row([], |row| row.get(0))?)
}

/// Encodes the rows that match `filter` with `after < sequence <= until`, in the order of `sequence`. They
/// come to `chunk`, as in [`push_rows`], and `each` sees those too that do not match.
pub fn push_invoices(
    conn: &Connection,
    filter: &Filter,
    (after, until): (i64, i64),
    chunk: Chunk,
    each: impl FnMut(&mut Chunk, &Row<'_>) -> Result<bool>,
) -> Result<Chunk> {
    let mut statement;
    let mut rows = if *filter == Filter::ALL {
        statement = conn.prepare_cached(sql::INVOICES_AFTER)?;
        statement.query(named_params! { ":after": after, ":until": until })?
    } else if filter.customer_id.is_empty() {
        statement = conn.prepare_cached(sql::INVOICES_AFTER_FILTERED)?;
        statement.query(named_params! {
            ":after": after, ":until": until, ":statuses": filter.statuses,
            ":from": filter.issued_from.seconds, ":from_nanos": filter.issued_from.nanos,
            ":before": filter.issued_until.seconds, ":before_nanos": filter.issued_until.nanos,
        })?
    } else {
        statement = conn.prepare_cached(sql::INVOICES_AFTER_BY_CUSTOMER)?;
        statement.query(named_params! {
            ":customer_id": filter.customer_id,
            ":after": after, ":until": until, ":statuses": filter.statuses,
            ":from": filter.issued_from.seconds, ":from_nanos": filter.issued_from.nanos,
            ":before": filter.issued_until.seconds, ":before_nanos": filter.issued_until.nanos,
        })?
    };
    push_rows(&mut rows, chunk, each)
}

/// A page of at most `size` invoices after a cursor, and the cursor to go on from; `None` where there are
/// no more. `is_enough` is asked now and then, with the rows read so far, whether the page is to end where
/// it is, however few match: each page gets on, so that following the cursor ends.
pub fn page(
    conn: &Connection,
    filter: &Filter,
    after: i64,
    size: usize,
    is_enough: impl Fn(usize) -> bool,
) -> Result<(Chunk, Option<i64>)> {
    let (mut read, mut next) = (0usize, None);
    let range = (after, i64::MAX);
    let mut page = push_invoices(conn, filter, range, Chunk::default(), |page, row| {
        read += 1;
        // One more than the page has tells that there are more.
        let is_over = page.len() > size;
        if !is_over && read.is_multiple_of(ROWS_A_LOOK) && is_enough(read) {
            next = Some(sequence(page, row)?);
        }
        Ok(!is_over && next.is_none())
    })?;
    if page.len() > size {
        page.pop();
        next = Some(page.last_sequence());
    }
    Ok((page, next))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::stop::Reason;
    use crate::store::Store;

    /// A database of `rows` invoices, of which the last is void, issued a second apart from 0 on.
    pub fn database(rows: i64) -> (tempfile::TempDir, Store, crate::store::StoreThread) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO invoices SELECT i, i, 'c' || (i % 2), i, substr('USDEURJPY', i % 3 * 3 + 1, 3),
                                         iif(i = ?1, 5, 1), i % 2, i - 1, 0, '', 0
             FROM n WHERE i <= ?1";
        Connection::open(&config.db).unwrap().execute(insert, [rows]).unwrap();
        (dir, store, thread)
    }

    fn void(customer_id: &str) -> Filter {
        Filter { customer_id: customer_id.to_owned(), statuses: 1 << 5, ..Filter::ALL }
    }

    #[test]
    fn a_page_ends_where_enough_was_read_and_the_next_goes_on_there() {
        const ROWS: i64 = 10_000;
        let (_dir, store, thread) = database(ROWS);
        for (customer_id, rows) in [("", ROWS as usize), ("c0", ROWS as usize / 2)] {
            let (mut after, mut pages, mut found) = (0, 0, Vec::new());
            loop {
                let read = |conn: &Connection| page(conn, &void(customer_id), after, 10, |_| true);
                let (page, next) =
                    store.database().reader().read_until(&Stop::default(), read).unwrap();
                found.extend((0..page.len()).map(|i| page.sequence(i)));
                pages += 1;
                let Some(next) = next else { break };
                assert!(next > after);
                after = next;
            }
            assert_eq!((pages, found), (rows / ROWS_A_LOOK + 1, vec![ROWS]), "{customer_id}");
        }
        // A page that is full is not cut, and one that has time reads on.
        let read = |is_enough: fn(usize) -> bool, filter: &Filter| {
            let read = |conn: &Connection| page(conn, filter, 0, 1000, is_enough);
            let (page, next) =
                store.database().reader().read_until(&Stop::default(), read).unwrap();
            (page.len(), next)
        };
        assert_eq!(read(|_| true, &Filter::ALL), (1000, Some(1000)));
        assert_eq!(read(|read| read >= 5000, &void("")), (0, Some(5 * ROWS_A_LOOK as i64)));
        assert_eq!(read(|_| false, &void("")), (1, None));
        thread.stop();
    }

    /// SQLite counts a statement's instructions over all its runs, so that any of them may be the one
    /// at which it looks whether it is still wanted: the beginning and the end of a transaction too.
    #[test]
    fn an_interrupted_transaction_leaves_its_connection_free() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let metrics = Arc::new(Metrics::default());
        let (store, thread) = Store::open(&config, &metrics).unwrap();
        let (wanted, unwanted) = (Stop::default(), Stop::default());
        unwanted.stop(Reason::ClientGone);
        let read = |is_unwanted: bool| {
            let read = |conn: &Connection| in_transaction(conn, last_sequence);
            store
                .database()
                .reader()
                .read_until(if is_unwanted { &unwanted } else { &wanted }, read)
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
        let counted = metrics.sql_interrupted.of(Interrupted::ClientGone).get();
        assert_eq!(counted, interrupted);
        thread.stop();
    }
}
