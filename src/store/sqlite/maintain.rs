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

/// Reads the whole database: its structure, and whether the kept totals are those of the rows. It takes time by
/// the size of the file, and works while a server has it. Of `config`, `db` and what is SQLite's.
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
    check_connection(&conn)
}

/// [`check`] of a database that is open.
pub fn check_connection(conn: &Connection) -> Result<CheckReport> {
    let conn = conn.unchecked_transaction()?;
    let mut faults = Vec::new();
    conn.pragma_query(None, "integrity_check", |row| {
        let line: String = row.get(0)?;
        faults.extend((line != "ok").then_some(line));
        Ok(())
    })?;
    faults.extend(drift(&conn)?);
    let schema_version = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let (invoice_count, last_sequence) =
        conn.query_row(sql::CHECK_INVOICES, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // The first schema keeps none.
    if schema_version > 1 {
        let kept = conn.query_row(sql::LAST_SEQUENCE, [], |row| row.get(0)).optional()?;
        if kept.is_none_or(|kept: i64| kept < last_sequence) {
            faults.push("the last_sequence of the ledger is below that of an invoice".to_owned());
        }
    }
    Ok(CheckReport { schema_version, invoice_count, last_sequence, faults })
}

/// The most customers that are named of those whose totals have drifted.
const MAX_CUSTOMERS: i64 = 10;

/// What is kept that is not what the rows say.
fn drift(conn: &Connection) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut currencies = conn.prepare(sql::CHECK_TOTALS)?;
    for currency in currencies.query_map([], |row| row.get::<_, String>(0))? {
        faults.push(format!("the totals of {} are not those of its invoices", currency?));
    }
    let mut customers = conn.prepare(sql::CHECK_CUSTOMER_TOTALS)?;
    let fault = |row: &Row<'_>| {
        let (customer_id, currency): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(format!(
            "the {currency} totals of customer {customer_id:?} are not those of its invoices"
        ))
    };
    faults.extend(
        customers.query_map([MAX_CUSTOMERS], fault)?.collect::<rusqlite::Result<Vec<_>>>()?,
    );
    Ok(faults)
}
