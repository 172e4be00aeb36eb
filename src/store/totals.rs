//! The kept totals, as the writer keeps them.
//!
//! The triggers of the schema do the same for every other program that writes. On the writer's connection
//! they are switched off: a statement with triggers makes SQLite save each page that it changes, to be able
//! to take the statement back, and the totals of a currency would be written again for each row. (`load ADDR bulk`
//! of benches/compare: 128,000 rows a second; with triggers, and what they save in a file, 40,000.)

use std::collections::BTreeMap;

use rusqlite::{params, CachedStatement, Connection, OptionalExtension};

use crate::error::Result;
use crate::store::error::is_overflow;
use crate::store::sql;

/// What one invoice or payment adds.
#[derive(Clone, Copy)]
pub struct Addition {
    pub invoice_count: i64,
    pub total_cents: i64,
    pub paid_cents: i64,
}

/// The totals of the currencies that a transaction of the writer has changed. They are saved once,
/// at its end: with many small jobs in a commit each would write the same few rows.
#[derive(Clone, Default)]
pub struct CurrencyTotals(BTreeMap<String, Changed>);

#[derive(Clone, Copy)]
struct Changed {
    before: Sums,
    now: Sums,
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Sums {
    invoice_count: i64,
    total_cents: i64,
    paid_cents: i64,
}

impl Sums {
    /// `None` where a sum would leave 64 bits.
    fn plus(self, more: Addition) -> Option<Sums> {
        Some(Sums {
            invoice_count: self.invoice_count.checked_add(more.invoice_count)?,
            total_cents: self.total_cents.checked_add(more.total_cents)?,
            paid_cents: self.paid_cents.checked_add(more.paid_cents)?,
        })
    }
}

impl CurrencyTotals {
    /// The totals as they are to be, and with them those of the transaction's beginning.
    fn find(&mut self, conn: &Connection, currency: &str) -> Result<&mut Changed> {
        if !self.0.contains_key(currency) {
            let mut find = conn.prepare_cached(sql::FIND_CURRENCY_TOTAL)?;
            let sums = find.query_row([currency], |row| {
                Ok(Sums {
                    invoice_count: row.get(0)?,
                    total_cents: row.get(1)?,
                    paid_cents: row.get(2)?,
                })
            });
            let before = sums.optional()?.unwrap_or_default();
            self.0.insert(currency.to_owned(), Changed { before, now: before });
        }
        // OK because it was put there, if it was not there.
        Ok(self.0.get_mut(currency).expect("a known currency"))
    }

    /// Writes what has changed. To be called before the commit.
    pub fn save(&self, conn: &Connection) -> Result<()> {
        let changed = self.0.iter().filter(|(_, Changed { before, now })| before != now);
        for (currency, Changed { now, .. }) in changed {
            conn.prepare_cached(sql::SET_CURRENCY_TOTAL)?.execute(params![
                currency,
                now.invoice_count,
                now.total_cents,
                now.paid_cents
            ])?;
        }
        Ok(())
    }
}

/// What a job of the writer adds to the totals with.
pub struct Totals<'a> {
    conn: &'a Connection,
    add_to_customer: CachedStatement<'a>,
    currencies: &'a mut CurrencyTotals,
}

impl<'a> Totals<'a> {
    pub fn prepare(conn: &'a Connection, currencies: &'a mut CurrencyTotals) -> Result<Totals<'a>> {
        let add_to_customer = conn.prepare_cached(sql::ADD_CUSTOMER_TOTAL)?;
        Ok(Totals { conn, add_to_customer, currencies })
    }

    /// Adds to the totals of the customer and of the currency; false, with nothing changed, when one
    /// of them would leave 64 bits.
    pub fn add(&mut self, customer_id: &str, currency: &str, more: Addition) -> Result<bool> {
        let changed = self.currencies.find(self.conn, currency)?;
        let Some(sums) = changed.now.plus(more) else { return Ok(false) };
        let Addition { invoice_count, total_cents, paid_cents } = more;
        let values = params![customer_id, currency, invoice_count, total_cents, paid_cents];
        match self.add_to_customer.execute(values) {
            Ok(_) => {}
            Err(error) if is_overflow(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        changed.now = sums;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::config::DbConfig;

    /// A database with the schema, whose triggers are on or off.
    fn database(triggers: bool) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        sql::MIGRATIONS.iter().for_each(|script| conn.execute_batch(script).unwrap());
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, triggers).unwrap();
        conn
    }

    const INSERT: &str = "INSERT INTO invoices
        VALUES (?1, ?1, ?2, ?3, ?4, 1, 0, 0, 0, '') RETURNING sequence";
    const PAY: &str = "UPDATE invoices SET paid_cents = paid_cents + ?2
        WHERE sequence = ?1 RETURNING customer_id, currency";

    fn all(conn: &Connection) -> Vec<String> {
        let text = "SELECT 'all', currency, invoice_count, total_cents, paid_cents
            FROM currency_totals
            UNION ALL SELECT customer_id, currency, invoice_count, total_cents, paid_cents
            FROM customer_totals ORDER BY 1, 2";
        let mut statement = conn.prepare(text).unwrap();
        let line = |row: &rusqlite::Row<'_>| {
            Ok(format!("{:?}", (0..5).map(|i| row.get_ref(i).unwrap()).collect::<Vec<_>>()))
        };
        statement.query_map([], line).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    fn cents() -> impl Strategy<Value = i64> {
        prop_oneof![0..1000i64, Just(i64::MAX), Just(i64::MAX / 2), Just(i64::MAX - 500)]
    }

    proptest! {
        /// What a trigger refuses is refused here, and what it adds is added.
        #[test]
        fn they_are_what_the_triggers_would_keep(
            jobs in prop::collection::vec(
                prop::collection::vec(("[ab]", "(USD|EUR)", cents(), prop::option::of(cents())), 1..8),
                1..4,
            ),
        ) {
            let (with, without) = (database(true), database(false));
            let mut sequence = 0;
            for job in jobs {
                let mut currencies = CurrencyTotals::default();
                let mut totals = Totals::prepare(&without, &mut currencies).unwrap();
                for (customer, currency, amount, payment) in job {
                    sequence += 1;
                    let invoice = params![sequence, customer, amount, currency];
                    let created = with.query_row(INSERT, invoice, |row| row.get::<_, i64>(0));
                    let addition = Addition { invoice_count: 1, total_cents: amount, paid_cents: 0 };
                    let is_added = totals.add(&customer, &currency, addition).unwrap();
                    prop_assert_eq!(is_added, created.is_ok());
                    if !is_added {
                        continue;
                    }
                    without.query_row(INSERT, invoice, |_| Ok(())).unwrap();
                    let Some(paid_cents) = payment else { continue };
                    let paid = with.query_row(PAY, params![sequence, paid_cents], |_| Ok(()));
                    let addition = Addition { invoice_count: 0, total_cents: 0, paid_cents };
                    let is_added = totals.add(&customer, &currency, addition).unwrap();
                    prop_assert_eq!(is_added, paid.is_ok());
                    if is_added {
                        without.query_row(PAY, params![sequence, paid_cents], |_| Ok(())).unwrap();
                    }
                }
                drop(totals);
                currencies.save(&without).unwrap();
                prop_assert_eq!(all(&without), all(&with));
            }
        }
    }
}
