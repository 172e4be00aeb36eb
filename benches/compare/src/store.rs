//! The statements of the six rpcs over the main crate's schema. They know nothing of threads or
//! gRPC: how they are scheduled and how their rows are sent is what tells the two peers apart.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use prost_types::Timestamp;
use rusqlite::types::Value;
use rusqlite::{ffi, params, params_from_iter, Connection, OptionalExtension, Row, Transaction};
use tonic::Status;

use crate::proto::{
    BulkCommit, BulkResult, CreateInvoiceRequest, CurrencyTotal, ExportRequest, Invoice,
    InvoiceStatus, ListInvoicesRequest, ReconcileAck, ReconcileEvent, ReconcileOutcome, Summary,
    SummaryRequest,
};
use crate::totals::{is_overflow, Totals};
use crate::{encode, rules};

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
    })
}

fn totals(
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

/// Creates the invoices of an upload, in the transaction or savepoint that is open.
pub fn create(
    connection: &Connection,
    invoices: &[CreateInvoiceRequest],
    commit: Option<&BulkCommit>,
) -> Result<BulkResult> {
    let batch_id = commit.map(|commit| commit.batch_id.as_str()).unwrap_or_default();
    if let Some(result) = applied(connection, batch_id, invoices.len())? {
        return Ok(result);
    }
    let mut insert = connection.prepare_cached(INSERT_INVOICE)?;
    let mut totals = BTreeMap::new();
    let kept = Totals::of(connection)?;
    let first = last_sequence(connection)? + 1;
    for invoice in invoices {
        insert_invoice(&mut insert, invoice)?;
        let more = [1, invoice.total_amount_cents, 0];
        if !kept.add(connection, &invoice.customer_id, &invoice.currency, more)? {
            return Err(overflow().into());
        }
        let (count, cents): &mut (i64, i64) = totals.entry(invoice.currency.as_str()).or_default();
        *count += 1;
        *cents = cents.checked_add(invoice.total_amount_cents).ok_or_else(overflow)?;
    }
    let count = invoices.len() as i64;
    let (first_sequence, last_sequence) =
        if count == 0 { (0, 0) } else { (first, first + count - 1) };
    if kept == Totals::AtCommit && count > 0 {
        connection
            .prepare_cached("UPDATE ledger SET last_sequence = ?1 WHERE id = 1")?
            .execute([last_sequence])?;
    }
    if !batch_id.is_empty() {
        connection
            .prepare_cached("INSERT INTO bulk_commits VALUES (?1, ?2, ?3, ?4, NULL)")?
            .execute(params![batch_id, count, first_sequence, last_sequence])?;
    }
    let totals = totals.into_iter().map(|(currency, (invoice_count, total_cents))| CurrencyTotal {
        currency: currency.to_owned(),
        invoice_count,
        total_cents,
        paid_cents: 0,
        outstanding_cents: total_cents,
    });
    Ok(result(batch_id, (first_sequence, last_sequence), totals.collect(), false))
}

fn insert_invoice(
    insert: &mut rusqlite::CachedStatement<'_>,
    invoice: &CreateInvoiceRequest,
) -> Result<()> {
    let assigned;
    let invoice_id = if invoice.invoice_id.is_empty() {
        assigned = uuid::Uuid::now_v7().to_string();
        &assigned
    } else {
        &invoice.invoice_id
    };
    let status = match invoice.total_amount_cents {
        0 => InvoiceStatus::Paid,
        _ => InvoiceStatus::Open,
    };
    let issued_at = invoice.issued_at.unwrap_or_default();
    let done = insert.execute(params![
        invoice_id,
        invoice.customer_id,
        invoice.total_amount_cents,
        invoice.currency,
        status as i32,
        issued_at.seconds,
        issued_at.nanos,
        invoice.memo,
    ]);
    match done.as_ref().err().and_then(extended_code) {
        Some(ffi::SQLITE_CONSTRAINT_UNIQUE) => {
            Err(Status::already_exists(format!("invoice_id {invoice_id} is taken")).into())
        }
        Some(ffi::SQLITE_CONSTRAINT_DATATYPE) => Err(overflow().into()),
        _ => Ok(done.map(drop)?),
    }
}

/// The result of an earlier upload of this name.
fn applied(connection: &Connection, batch_id: &str, rows: usize) -> Result<Option<BulkResult>> {
    if batch_id.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT count, first_sequence, last_sequence FROM bulk_commits WHERE batch_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_row([batch_id], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((count, first, last)) = found else { return Ok(None) };
    if count != rows as i64 {
        let message = format!("batch_id {batch_id} was applied with {count} invoices");
        return Err(Status::aborted(message).into());
    }
    // Nothing was paid when the first result was sent.
    let sql = "SELECT currency, count(*), sum(total_amount_cents), 0 FROM invoices \
               WHERE sequence BETWEEN ?1 AND ?2 GROUP BY currency ORDER BY currency";
    let totals = totals(connection, sql, vec![Value::Integer(first), Value::Integer(last)])?;
    Ok(Some(result(batch_id, (first, last), totals, true)))
}

fn result(
    batch_id: &str,
    (first_sequence, last_sequence): (i64, i64),
    totals: Vec<CurrencyTotal>,
    already_applied: bool,
) -> BulkResult {
    BulkResult {
        created_count: totals.iter().map(|total| total.invoice_count).sum(),
        total_cents: if let [total] = &totals[..] { Some(total.total_cents) } else { None },
        totals,
        first_sequence,
        last_sequence,
        batch_id: batch_id.to_owned(),
        already_applied,
    }
}

/// Applies one event, in the transaction or savepoint that is open.
pub fn apply(
    connection: &Connection,
    event: &ReconcileEvent,
    totals: Totals,
) -> Result<ReconcileAck> {
    let mut ack = ReconcileAck { event_id: event.event_id.clone(), ..Default::default() };
    if let Some(message) = rules::event(event) {
        refuse(&mut ack, ReconcileOutcome::Rejected, &message);
        return Ok(ack);
    }
    // With triggers only the payment itself shows that a sum overflows, so it comes before the event is
    // remembered, and a look before it. Without them the event's own insert tells that it is known.
    if totals == Totals::Triggers {
        if let Some(known) = known(connection, event)? {
            return Ok(known);
        }
    }
    let due = pay(connection, event, totals, &mut ack)?;
    if !is_applied(&ack) {
        return Ok(known(connection, event)?.unwrap_or(ack));
    }
    if remember(connection, event, &ack)? {
        if let Some(due) = due {
            due.set_paid(connection)?;
        }
        return Ok(ack);
    }
    if let Some(Due { customer, .. }) = due {
        totals.add(connection, &customer, &event.currency, [0, 0, -event.amount_cents])?;
    }
    let known = known(connection, event)?;
    known.ok_or_else(|| Status::internal("a known event is gone").into())
}

/// Only such an event is remembered.
fn is_applied(ack: &ReconcileAck) -> bool {
    use ReconcileOutcome::{Overpaid, Partial, Settled};
    [Partial, Settled, Overpaid].map(|outcome| outcome as i32).contains(&ack.outcome)
}

/// A payment that is in the totals, and not yet in its invoice.
struct Due {
    sequence: i64,
    customer: String,
    status: i32,
    paid: i64,
}

impl Due {
    fn set_paid(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE invoices SET status = ?2, paid_cents = ?3 WHERE sequence = ?1")?
            .execute(params![self.sequence, self.status, self.paid])
            .map(drop)
    }
}

/// What an event is answered whose id was applied before: its first acknowledgement, or that it is another.
fn known(
    connection: &Connection,
    event: &ReconcileEvent,
) -> rusqlite::Result<Option<ReconcileAck>> {
    let sql = "SELECT event_id, outcome, invoice_status, outstanding_cents, \
               invoice_id = ?2 AND amount_cents = ?3 AND currency = ?4 \
               FROM reconcile_events WHERE event_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let content = params![event.event_id, event.invoice_id, event.amount_cents, event.currency];
    let ack = statement.query_row(content, |row| {
        let mut ack = ReconcileAck { event_id: row.get(0)?, ..Default::default() };
        if !row.get::<_, bool>(4)? {
            let message = "the event_id was used for another payment";
            refuse(&mut ack, ReconcileOutcome::EventIdReused, message);
            return Ok(ack);
        }
        ack.outcome = row.get(1)?;
        (ack.invoice_status, ack.outstanding_cents) = (row.get(2)?, row.get(3)?);
        ack.duplicate = true;
        Ok(ack)
    });
    ack.optional()
}

/// Whether the event is new; then it is kept with its acknowledgement.
fn remember(
    connection: &Connection,
    event: &ReconcileEvent,
    ack: &ReconcileAck,
) -> rusqlite::Result<bool> {
    let received_at = event.received_at.unwrap_or_default();
    let inserted = connection
        .prepare_cached(
            "INSERT INTO reconcile_events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
             ON CONFLICT (event_id) DO NOTHING",
        )?
        .execute(params![
            event.event_id,
            event.invoice_id,
            event.amount_cents,
            event.currency,
            received_at.seconds,
            received_at.nanos,
            event.reference,
            ack.outcome,
            ack.invoice_status,
            ack.outstanding_cents,
            ack.message,
        ])?;
    Ok(inserted == 1)
}

/// Fills in the acknowledgement. Returns a payment that is still to be written into its invoice.
fn pay(
    connection: &Connection,
    event: &ReconcileEvent,
    totals: Totals,
    ack: &mut ReconcileAck,
) -> Result<Option<Due>> {
    let sql = "SELECT sequence, total_amount_cents, paid_cents, status, currency, customer_id \
               FROM invoices WHERE invoice_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([&event.invoice_id])?;
    let Some(row) = rows.next()? else {
        refuse(ack, ReconcileOutcome::UnknownInvoice, "there is no such invoice");
        return Ok(None);
    };
    let (sequence, total, paid): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    ack.invoice_status = row.get(3)?;
    ack.outstanding_cents = total - paid;
    if ack.invoice_status == InvoiceStatus::Void as i32 {
        refuse(ack, ReconcileOutcome::InvoiceVoid, "the invoice is void");
        return Ok(None);
    }
    if row.get_ref(4)?.as_bytes() != Ok(event.currency.as_bytes()) {
        refuse(ack, ReconcileOutcome::CurrencyMismatch, "the invoice has another currency");
        return Ok(None);
    }
    let customer: String = row.get(5)?;
    drop(rows);
    let Some(paid) = paid.checked_add(event.amount_cents) else {
        refuse(ack, ReconcileOutcome::Rejected, "the sum would overflow");
        return Ok(None);
    };
    let (outcome, status) = match paid.cmp(&total) {
        std::cmp::Ordering::Less => (ReconcileOutcome::Partial, InvoiceStatus::PartiallyPaid),
        std::cmp::Ordering::Equal => (ReconcileOutcome::Settled, InvoiceStatus::Paid),
        std::cmp::Ordering::Greater => (ReconcileOutcome::Overpaid, InvoiceStatus::Overpaid),
    };
    let due = Due { sequence, customer, status: status as i32, paid };
    let due = match totals {
        Totals::Triggers => match due.set_paid(connection) {
            Ok(()) => None,
            Err(error) if is_overflow(&error) => {
                refuse(ack, ReconcileOutcome::Rejected, "the sum would overflow");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        },
        Totals::AtCommit => {
            let more = [0, 0, event.amount_cents];
            if !totals.add(connection, &due.customer, &event.currency, more)? {
                refuse(ack, ReconcileOutcome::Rejected, "the sum would overflow");
                return Ok(None);
            }
            Some(due)
        }
    };
    ack.outcome = outcome as i32;
    ack.invoice_status = status as i32;
    ack.outstanding_cents = total - paid;
    Ok(due)
}

fn refuse(ack: &mut ReconcileAck, outcome: ReconcileOutcome, message: &str) {
    ack.outcome = outcome as i32;
    ack.message = message.to_owned();
}

fn overflow() -> Status {
    Status::invalid_argument("a sum of cents does not fit in 64 bits")
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Begins a transaction that writes, so that it waits for the lock now and not in its middle.
pub fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
}
