//! The kept totals of the schema: by its triggers, or in their place.

use std::collections::BTreeMap;

use rusqlite::config::DbConfig;
use rusqlite::{ffi, params, Connection, OptionalExtension};

/// Count, total and paid cents that are added, or that are.
pub type Sums = [i64; 3];

/// How the job at hand keeps the totals.
pub enum Totals {
    /// The schema's triggers do it with every row.
    Triggers,
    /// They are switched off on this connection: customers are added to at once, currencies at the
    /// end of the job.
    Job(BTreeMap<String, Sums>),
}

/// Switches the triggers off: what writes on this connection keeps the totals by [`Totals`].
pub fn without_triggers(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map(drop)
}

impl Totals {
    pub fn of(connection: &Connection) -> rusqlite::Result<Totals> {
        Ok(match connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)? {
            true => Totals::Triggers,
            false => Totals::Job(BTreeMap::new()),
        })
    }

    /// False, with nothing changed, where a sum would not fit in 64 bits. (A trigger says so itself.)
    pub fn add(
        &mut self,
        connection: &Connection,
        customer: &str,
        currency: &str,
        more: Sums,
    ) -> rusqlite::Result<bool> {
        let Totals::Job(currencies) = self else { return Ok(true) };
        if !currencies.contains_key(currency) {
            currencies.insert(currency.to_owned(), find(connection, currency)?);
        }
        // OK because it was put there, if it was not there.
        let now = currencies.get_mut(currency).expect("a known currency");
        let mut sums = *now;
        for (sum, more) in sums.iter_mut().zip(more) {
            match sum.checked_add(more) {
                Some(more) => *sum = more,
                None => return Ok(false),
            }
        }
        let sql = "INSERT INTO customer_totals VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT (customer_id, currency) DO UPDATE SET \
                   invoice_count = invoice_count + excluded.invoice_count, \
                   total_cents = total_cents + excluded.total_cents, \
                   paid_cents = paid_cents + excluded.paid_cents";
        let values = params![customer, currency, more[0], more[1], more[2]];
        match connection.prepare_cached(sql)?.execute(values) {
            Ok(_) => {}
            Err(error) if is_overflow(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        *now = sums;
        Ok(true)
    }

    pub fn save(self, connection: &Connection) -> rusqlite::Result<()> {
        let Totals::Job(currencies) = self else { return Ok(()) };
        for (currency, [count, total, paid]) in currencies {
            let sql = "INSERT INTO currency_totals VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT (currency) DO UPDATE SET \
                       invoice_count = excluded.invoice_count, \
                       total_cents = excluded.total_cents, paid_cents = excluded.paid_cents";
            connection.prepare_cached(sql)?.execute(params![currency, count, total, paid])?;
        }
        Ok(())
    }
}

fn find(connection: &Connection, currency: &str) -> rusqlite::Result<Sums> {
    let sql =
        "SELECT invoice_count, total_cents, paid_cents FROM currency_totals WHERE currency = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let sums = statement.query_row([currency], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
    Ok(sums.optional()?.unwrap_or_default())
}

/// Whether a sum left 64 bits: it became REAL, which a STRICT column of INTEGER refuses.
pub fn is_overflow(error: &rusqlite::Error) -> bool {
    error.sqlite_error().map(|e| e.extended_code) == Some(ffi::SQLITE_CONSTRAINT_DATATYPE)
}
