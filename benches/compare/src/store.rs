//! The statements of the six rpcs over the main crate's schema. They know nothing of threads or
//! gRPC: how they are scheduled and how their rows are sent is what tells the two peers apart.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use prost_types::Timestamp;
use rusqlite::types::Value;
use rusqlite::{ffi, params_from_iter, Connection, Row, Transaction};
use tonic::Status;

use crate::proto::{
    CurrencyTotal, ExportRequest, Invoice, ListInvoicesRequest, Summary, SummaryRequest,
};
use crate::{encode, rules};

/// The second schema: what came later, the ledger and credit notes, is no work of the rpcs that are compared.
const SCHEMA: &str = concat!(
    include_str!("../../../sql/migrations/0001_initial.sql"),
    include_str!("../../../sql/migrations/0002_what_was_given_once.sql"),
);

/// "bill": by it billstream knows its own files.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"bill");

macro_rules! columns {
    () => {
        "sequence, invoice_id, customer_id, total_amount_cents, currency, status, paid_cents, \
         issued_at, issued_at_nanos, memo"
    };
}

/// What a statement gives of a row: its columns, in the order of the fields of `Invoice`.
pub const COLUMNS: &str = columns!();
/// Its sequence alone, for the row was encoded. See [`encode::add_functions`].
pub const PUSHED_INVOICE: &str = concat!("push_invoice(", columns!(), ")");
pub const PUSHED_ENTRY: &str = concat!("push_entry(", columns!(), ")");

/// A new invoice with a status of its own choice.
pub const INSERT_INVOICE: &str =
    "INSERT INTO invoices (invoice_id, customer_id, total_amount_cents, \
                              currency, status, paid_cents, issued_at, issued_at_nanos, memo) \
                              VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8)";

pub type Result<T> = std::result::Result<T, Error>;

/// A fault of the database, or an answer that is a status already.
#[derive(Debug)]
pub enum Error {
    Sql(rusqlite::Error),
    Status(Status),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Sql(error)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Status(status)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let sql = match error {
            Error::Status(status) => return status,
            Error::Sql(sql) => sql,
        };
        match sql.sqlite_error_code() {
            Some(ffi::ErrorCode::OperationInterrupted) => Status::deadline_exceeded("query ended"),
            Some(
                ffi::ErrorCode::DatabaseBusy
                | ffi::ErrorCode::DatabaseLocked
                | ffi::ErrorCode::DiskFull,
            ) => Status::unavailable("the database is busy or out of disk"),
            _ => {
                eprintln!("database: {sql}");
                Status::internal("a fault of the database, see the log")
            }
        }
    }
}

/// Opens a connection with the pragmas of the main crate, and the functions that encode.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    pragmas(&mut connection)?;
    encode::add_functions(&connection)?;
    Ok(connection)
}

/// Sets what a connection of its own does not inherit from the file.
pub fn pragmas(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA cache_size = -8192; PRAGMA temp_store = memory;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Creates the schema in an empty file.
pub fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        connection.execute_batch(&format!(
            "BEGIN; {SCHEMA}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 2; COMMIT;"
        ))?;
    }
    Ok(())
}

/// The highest sequence that was given, 0 before the first.
pub fn last_sequence(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT last_sequence FROM ledger WHERE id = 1")?
        .query_row([], |row| row.get(0))
}

/// To be called in one read transaction, so that the totals and the sequence are of one moment.
pub fn summary(connection: &Connection, request: &SummaryRequest) -> Result<Summary> {
    let (from, until) = (request.issued_from.as_ref(), request.issued_until.as_ref());
    rules::filter(&request.customer_id, &[], from, until)?;
    let mut values = Vec::new();
    let sql = if from.is_some() || until.is_some() {
        let filter = conditions(&request.customer_id, &[], from, until, &mut values);
        let index = if request.customer_id.is_empty() { "issued_at" } else { "customer" };
        format!(
            "SELECT currency, count(*), sum(total_amount_cents), sum(paid_cents) \
             FROM invoices INDEXED BY invoices_by_{index} \
             WHERE {filter} GROUP BY currency ORDER BY currency"
        )
    } else {
        let columns = "SELECT currency, invoice_count, total_cents, paid_cents FROM";
        if request.customer_id.is_empty() {
            format!("{columns} currency_totals ORDER BY currency")
        } else {
            values.push(Value::Text(request.customer_id.clone()));
            format!("{columns} customer_totals WHERE customer_id = ?1 ORDER BY currency")
        }
    };
    let totals = totals(connection, &sql, values)?;
    let last_sequence = last_sequence(connection)?;
    Ok(Summary {
        invoice_count: totals.iter().map(|total| total.invoice_count).sum(),
        totals,
        last_sequence,
        ..Default::default()
    })
}

pub fn totals(
    connection: &Connection,
    sql: &str,
    values: Vec<Value>,
) -> rusqlite::Result<Vec<CurrencyTotal>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        let (total_cents, paid_cents): (i64, i64) = (row.get(2)?, row.get(3)?);
        Ok(CurrencyTotal {
            currency: row.get(0)?,
            invoice_count: row.get(1)?,
            total_cents,
            paid_cents,
            outstanding_cents: total_cents - paid_cents,
            ..Default::default()
        })
    })?;
    rows.collect()
}

/// The conditions of a filter as SQL, with its values appended to `values`.
fn conditions(
    customer: &str,
    statuses: &[i32],
    from: Option<&Timestamp>,
    until: Option<&Timestamp>,
    values: &mut Vec<Value>,
) -> String {
    let mut sql = String::from("1");
    if !customer.is_empty() {
        values.push(Value::Text(customer.to_owned()));
        sql.push_str(&format!(" AND customer_id = ?{}", values.len()));
    }
    if !statuses.is_empty() {
        let list: Vec<String> = statuses.iter().map(i32::to_string).collect();
        sql.push_str(&format!(" AND status IN ({})", list.join(", ")));
    }
    for (bound, operator) in [(from, ">="), (until, "<")] {
        if let Some(time) = bound {
            values.push(Value::Integer(time.seconds));
            values.push(Value::Integer(time.nanos.into()));
            let n = values.len();
            let times = "(issued_at, issued_at_nanos)";
            sql.push_str(&format!(" AND {times} {operator} (?{}, ?{n})", n - 1));
        }
    }
    sql
}

/// A scan in the order of `sequence` that can stop after any row and go on from there.
pub struct Scan {
    sql: String,
    /// `after`, `last`, `limit`, then the values of the filter.
    values: Vec<Value>,
    after: i64,
    last: i64,
    left: i64,
}

impl Scan {
    /// A scan of the rows there are now, which gives `columns` of each.
    pub fn export(connection: &Connection, request: &ExportRequest, columns: &str) -> Result<Scan> {
        let (from, until) = (request.issued_from.as_ref(), request.issued_until.as_ref());
        rules::filter(&request.customer_id, &request.statuses, from, until)?;
        let mut violations = rules::Violations::default();
        violations.check(request.after_sequence >= 0, "after_sequence", "must be 0 or more");
        violations.check(request.max_rows >= 0, "max_rows", "must be 0 or more");
        violations.finish("")?;
        let left = if request.max_rows == 0 { i64::MAX } else { request.max_rows };
        let filter = (request.customer_id.as_str(), request.statuses.as_slice());
        let last = last_sequence(connection)?;
        Ok(Scan::new(columns, filter, (from, until), request.after_sequence, last, left))
    }

    fn new(
        columns: &str,
        (customer, statuses): (&str, &[i32]),
        (from, until): (Option<&Timestamp>, Option<&Timestamp>),
        after: i64,
        last: i64,
        left: i64,
    ) -> Scan {
        let mut values = vec![Value::Null; 3];
        let filter = conditions(customer, statuses, from, until, &mut values);
        // Both ways give the rows in the order of `sequence` without sorting.
        let index =
            if customer.is_empty() { "NOT INDEXED" } else { "INDEXED BY invoices_by_customer" };
        let sql = format!(
            "SELECT {columns} FROM invoices {index} \
             WHERE sequence > ?1 AND sequence <= ?2 AND {filter} ORDER BY sequence LIMIT ?3"
        );
        Scan { sql, values, after, last, left }
    }

    /// Calls `each` for the next rows until it says false; true when there are no more.
    pub fn run(
        &mut self,
        connection: &Connection,
        mut each: impl FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<bool> {
        for (value, now) in self.values.iter_mut().zip([self.after, self.last, self.left]) {
            *value = Value::Integer(now);
        }
        let mut statement = connection.prepare_cached(&self.sql)?;
        let mut rows = statement.query(params_from_iter(&self.values))?;
        while let Some(row) = rows.next()? {
            self.left -= 1;
            if !each(row)? {
                self.after = row.get(0)?;
                return Ok(self.left == 0 || self.after == self.last);
            }
        }
        Ok(true)
    }
}

/// Reads one row of [`COLUMNS`] as a struct.
pub fn invoice(row: &Row<'_>) -> rusqlite::Result<Invoice> {
    Ok(Invoice {
        sequence: row.get(0)?,
        invoice_id: row.get(1)?,
        customer_id: row.get(2)?,
        total_amount_cents: row.get(3)?,
        currency: row.get(4)?,
        status: row.get(5)?,
        paid_cents: row.get(6)?,
        issued_at: Some(Timestamp { seconds: row.get(7)?, nanos: row.get(8)? }),
        memo: row.get(9)?,
    })
}

/// Calls `each` for the rows of a page, which have `columns`; the token of the next page, empty after the
/// last.
pub fn page(
    connection: &Connection,
    request: &ListInvoicesRequest,
    columns: &str,
    mut each: impl FnMut(&Row<'_>) -> Result<()>,
) -> Result<String> {
    let (from, until) = (request.issued_from.as_ref(), request.issued_until.as_ref());
    rules::filter(&request.customer_id, &request.statuses, from, until)?;
    let size = match request.page_size {
        ..0 => return Err(rules::invalid("page_size", "must be 0 or more").into()),
        0 => 100,
        size => rules::MAX_PAGE_SIZE.min(size as usize),
    };
    let after = match request.page_token.as_str() {
        "" => 0,
        token => after_token(request, token)?,
    };
    let filter = (request.customer_id.as_str(), request.statuses.as_slice());
    // One row more than the page tells whether there is a next page.
    let mut scan = Scan::new(columns, filter, (from, until), after, i64::MAX, size as i64 + 1);
    let (mut count, mut last) = (0, 0);
    scan.run(connection, |row| {
        count += 1;
        if count <= size {
            last = row.get(0)?;
            each(row)?;
        }
        Ok(true)
    })?;
    Ok(if count > size { token(request, last) } else { String::new() })
}

/// The cursor and a check over it and the filter.
fn token(request: &ListInvoicesRequest, after: i64) -> String {
    let mut hasher = DefaultHasher::new();
    (after, &request.customer_id, &request.statuses).hash(&mut hasher);
    for time in [&request.issued_from, &request.issued_until] {
        time.as_ref().map(|time| (time.seconds, time.nanos)).hash(&mut hasher);
    }
    format!("{after}-{:016x}", hasher.finish())
}

fn after_token(request: &ListInvoicesRequest, text: &str) -> Result<i64> {
    let after = text.split('-').next().and_then(|after| after.parse().ok());
    match after {
        Some(after) if token(request, after) == text => Ok(after),
        _ => {
            let expected = "must be the token of a page with this filter";
            Err(rules::invalid("page_token", expected).into())
        }
    }
}

pub fn overflow() -> Status {
    Status::invalid_argument("a sum of cents does not fit in 64 bits")
}

pub fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Begins a transaction that writes, so that it waits for the lock now and not in its middle.
pub fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
}
