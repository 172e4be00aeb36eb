//! What an operator asks of the database from beside the server: is it sound.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::config::Config;
use crate::error::Result;
use crate::store::sqlite::open::{open_reader, set_pragmas};
use crate::store::sqlite::sql;
use crate::store::sqlite::upgrade::VERSION;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The version of its tables; an older one is brought up by the start of a server.
    pub schema_version: i32,
    /// How many invoices it has.
    pub invoice_count: i64,
    /// The highest that an invoice has.
    pub last_sequence: i64,
    /// What is wrong; empty for a sound database.
    pub faults: Vec<String>,
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema version {}", self.schema_version)?;
        if self.schema_version < VERSION {
            write!(f, "; the start of a server brings it to {VERSION}")?;
        }
        writeln!(f)?;
        writeln!(f, "{} invoices, last sequence {}", self.invoice_count, self.last_sequence)?;
        for fault in &self.faults {
            writeln!(f, "fault: {fault}")?;
        }
        let verdict = if self.faults.is_empty() { "sound" } else { "not sound" };
        write!(f, "the database is {verdict}")
    }
}

/// Reads the whole database: its structure, whether the kept totals are those of the rows, and whether each invoice is
/// what its events make it: what is paid, the order of the events, the status. It takes time by the size of the file,
/// and works while a server has it. Of `config`, `db` and what is SQLite's.
///
/// # Errors
///
/// [`Error::Unusable`](crate::Error::Unusable) where there is no database of ours, [`Error::Malformed`](crate::Error::Malformed) where it cannot be read to its
/// end. Other faults are no errors: [`CheckReport::faults`] has them.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let config = billstream::Config { db: dir.path().join("bills.db"), ..Default::default() };
/// # billstream::Server::builder(config.clone()).without_listeners().start()?.shutdown()?;
/// use billstream::server::{backup, check, restore};
///
/// let report = check(&config)?;
/// assert!(report.faults.is_empty(), "{report}");
/// let copy = dir.path().join("backup.db");
/// println!("{} bytes", backup(&config.db, &copy)?);
/// // What is there now is kept under another name.
/// let restored = restore(&copy, &config.db, true)?;
/// assert_eq!(restored.invoice_count, report.invoice_count);
/// # Ok::<(), billstream::Error>(())
/// ```
pub fn check(config: &Config) -> Result<CheckReport> {
    let conn = open_reader(&config.db)?;
    set_pragmas(&conn, config)?;
    let conn = conn.unchecked_transaction()?;
    let mut report = check_open(&conn)?;
    if report.schema_version >= BOOKS {
        report.faults.extend(contradictions(&conn)?);
    }
    Ok(report)
}

/// The schema of credit notes, refunds and voids, and of the order of events.
const BOOKS: i32 = 3;

/// Whether a database that is open is whole, for a copy of it. (What contradicts in its books was so before the copy.)
pub fn check_connection(conn: &Connection) -> Result<CheckReport> {
    check_open(&*conn.unchecked_transaction()?)
}

fn check_open(conn: &Connection) -> Result<CheckReport> {
    let mut faults = Vec::new();
    conn.pragma_query(None, "integrity_check", |row| {
        let line: String = row.get(0)?;
        faults.extend((line != "ok").then_some(line));
        Ok(())
    })?;
    let schema_version = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    faults.extend(drift(conn, schema_version)?);
    let (invoice_count, last_sequence) =
        conn.query_row(sql::CHECK_INVOICES, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // The first schema keeps none.
    if schema_version > 1 {
        let kept = conn.query_row(sql::LAST_SEQUENCE, [], |row| row.get(0)).optional()?;
        if kept.is_none_or(|kept: i64| kept < last_sequence) {
            faults.push("the last_sequence of the ledger is below that of an invoice".to_owned());
        }
    }
    if schema_version >= BOOKS {
        let last: i64 = conn.query_row(sql::CHECK_LAST_EVENT, [], |row| row.get(0))?;
        let kept = conn.query_row(sql::LAST_EVENT_SEQUENCE, [], |row| row.get(0)).optional()?;
        if kept.is_some_and(|kept: i64| kept < last) {
            faults
                .push("the last_event_sequence of the ledger is below that of an event".to_owned());
        }
    }
    Ok(CheckReport { schema_version, invoice_count, last_sequence, faults })
}

/// The most that are named of those that are wrong in one way.
const MAX_NAMED: i64 = 10;

/// What is kept that is not what the rows say.
fn drift(conn: &Connection, schema_version: i32) -> Result<Vec<String>> {
    let (of_currencies, of_customers) = match schema_version >= BOOKS {
        true => (sql::CHECK_TOTALS, sql::CHECK_CUSTOMER_TOTALS),
        false => (sql::CHECK_TOTALS_UNTIL_2, sql::CHECK_CUSTOMER_TOTALS_UNTIL_2),
    };
    let mut faults = Vec::new();
    let mut currencies = conn.prepare(of_currencies)?;
    for currency in currencies.query_map([], |row| row.get::<_, String>(0))? {
        faults.push(format!("the totals of {} are not those of its invoices", currency?));
    }
    let mut customers = conn.prepare(of_customers)?;
    let fault = |row: &Row<'_>| {
        let (customer_id, currency): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(format!(
            "the {currency} totals of customer {customer_id:?} are not those of its invoices"
        ))
    };
    faults.extend(customers.query_map([MAX_NAMED], fault)?.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(faults)
}

/// Where invoices and events do not say the same, each by the id of its invoice.
fn contradictions(conn: &Connection) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (statement, fault) in [
        (sql::CHECK_STATUSES, of_status as fn(&Row<'_>) -> rusqlite::Result<String>),
        (sql::CHECK_NEWEST_EVENTS, of_newest_event),
        (sql::CHECK_EVENTS, of_event),
    ] {
        let mut statement = conn.prepare(statement)?;
        let found = statement.query_map([MAX_NAMED], fault)?;
        faults.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(faults)
}

fn of_status(row: &Row<'_>) -> rusqlite::Result<String> {
    let (invoice_id, status): (String, i64) = (row.get(0)?, row.get(1)?);
    let (total, paid): (i64, i64) = (row.get(2)?, row.get(3)?);
    let status = match status {
        1 => "OPEN",
        2 => "PARTIALLY_PAID",
        3 => "PAID",
        4 => "OVERPAID",
        _ => "VOID",
    };
    Ok(format!("invoice {invoice_id:?} is {status}, with {paid} paid of {total}"))
}

fn of_newest_event(row: &Row<'_>) -> rusqlite::Result<String> {
    let (invoice_id, last, paid): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(match last {
        0 => format!("invoice {invoice_id:?} has {paid} paid, and no event"),
        last => {
            format!("invoice {invoice_id:?} has event {last} as its newest, which is none of its")
        }
    })
}

/// The first that is wrong of what the row has, against what it should have.
fn of_event(row: &Row<'_>) -> rusqlite::Result<String> {
    let (event_id, invoice_id): (String, String) = (row.get(0)?, row.get(1)?);
    let event = format!("event {event_id:?} of invoice {invoice_id:?}");
    let invoice = format!("invoice {invoice_id:?}");
    for (what, column) in [
        (format!("{event} has as the event before it"), 2),
        (format!("{event} has as outstanding after it"), 4),
        (format!("{invoice} has as its newest event"), 6),
        (format!("{invoice} has as paid"), 8),
    ] {
        let (is, should): (Option<i64>, Option<i64>) = (row.get(column)?, row.get(column + 1)?);
        // The invoice is there no more.
        let (Some(is), Some(should)) = (is, should) else { continue };
        if is != should {
            return Ok(format!("{what} {is}, and the ledger makes it {should}"));
        }
    }
    Ok(event)
}
