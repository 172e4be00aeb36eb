//! The kept totals of the schema: by its triggers, or in their place.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rusqlite::config::DbConfig;
use rusqlite::{ffi, params, Connection, OptionalExtension};

/// Count, total and paid cents that are added, or that are.
pub type Sums = [i64; 3];

/// How a connection keeps the totals.
#[derive(Clone, Copy, PartialEq)]
pub enum Totals {
    /// The schema's triggers do it with every row.
    Triggers,
    /// They are switched off: what a transaction adds is pending until [`save`].
    AtCommit,
}

/// By currency: its sums as they are to be, and what is added to those of each customer.
pub type Pending = BTreeMap<String, (Sums, BTreeMap<String, Sums>)>;

thread_local! {
    /// That of the transaction of this thread.
    static PENDING: RefCell<Pending> = RefCell::default();
}

/// Switches the triggers off: what writes on this connection keeps the totals by [`Totals::AtCommit`].
pub fn without_triggers(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map(drop)
}

/// What this thread's transaction has added so far.
pub fn pending() -> Pending {
    PENDING.with_borrow(Pending::clone)
}

/// Sets it: to nothing at the beginning of a transaction, to what it was at a rollback to a savepoint.
pub fn set_pending(pending: Pending) {
    PENDING.set(pending);
}

impl Totals {
    pub fn of(connection: &Connection) -> rusqlite::Result<Totals> {
        Ok(match connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)? {
            true => Totals::Triggers,
            false => Totals::AtCommit,
        })
    }

    /// False, with nothing changed, where a sum would not fit in 64 bits. (A trigger says so itself.) That of a
    /// customer fits where that of the currency does: no amount is negative.
    pub fn add(
        self,
        connection: &Connection,
        customer: &str,
        currency: &str,
        more: Sums,
    ) -> rusqlite::Result<bool> {
        if self == Totals::Triggers {
            return Ok(true);
        }
        PENDING.with_borrow_mut(|pending| {
            if !pending.contains_key(currency) {
                let found = (find(connection, currency)?, BTreeMap::new());
                pending.insert(currency.to_owned(), found);
            }
            // OK because it was put there, if it was not there.
            let (now, customers) = pending.get_mut(currency).expect("a known currency");
            let Some(sums) = plus(*now, more) else { return Ok(false) };
            match customers.get_mut(customer) {
                Some(added) => match plus(*added, more) {
                    Some(sums) => *added = sums,
                    None => return Ok(false),
                },
                None => drop(customers.insert(customer.to_owned(), more)),
            }
            *now = sums;
            Ok(true)
        })
    }
}

fn plus(sums: Sums, more: Sums) -> Option<Sums> {
    let [a, b, c] = sums;
    let [d, e, f] = more;
    Some([a.checked_add(d)?, b.checked_add(e)?, c.checked_add(f)?])
}

/// Writes what is pending. To be called before the commit.
pub fn save(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO currency_totals VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (currency) DO UPDATE SET \
               invoice_count = excluded.invoice_count, \
               total_cents = excluded.total_cents, paid_cents = excluded.paid_cents";
    let mut set_currency = connection.prepare_cached(sql)?;
    let sql = "INSERT INTO customer_totals VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT (customer_id, currency) DO UPDATE SET \
               invoice_count = invoice_count + excluded.invoice_count, \
               total_cents = total_cents + excluded.total_cents, \
               paid_cents = paid_cents + excluded.paid_cents";
    let mut add_to_customer = connection.prepare_cached(sql)?;
    for (currency, ([count, total, paid], customers)) in PENDING.take() {
        set_currency.execute(params![currency, count, total, paid])?;
        for (customer, [count, total, paid]) in customers {
            add_to_customer.execute(params![customer, currency, count, total, paid])?;
        }
    }
    Ok(())
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
