//! The kept totals, as the writer keeps them.
//!
//! The triggers of the schema do the same for every other program that writes. On the writer's connection
//! they are switched off: a statement with triggers makes SQLite save each page that it changes, to be able
//! to take the statement back, and the totals of a currency would be written again for each row. (An upload
//! of 100,000 invoices takes 5.9 us a row and not 10.3.)

use std::collections::BTreeMap;

use rusqlite::{params, CachedStatement, Connection, OptionalExtension};

use crate::error::Result;
use crate::model::CurrencyTotal;
use crate::store::error::is_overflow;
use crate::store::sql;

/// What one invoice or payment adds.
#[derive(Clone, Copy)]
pub struct Addition {
    pub invoice_count: i64,
    pub total_cents: i64,
    pub paid_cents: i64,
}

/// The totals that one job of the writer changes. To be saved at the end of the job.
pub struct Totals<'a> {
    find_currency: CachedStatement<'a>,
    set_currency: CachedStatement<'a>,
    add_to_customer: CachedStatement<'a>,
    /// The currencies that were met.
    currencies: BTreeMap<String, Changed>,
}

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

impl<'a> Totals<'a> {
    pub fn prepare(conn: &'a Connection) -> Result<Totals<'a>> {
        Ok(Totals {
            find_currency: conn.prepare_cached(sql::FIND_CURRENCY_TOTAL)?,
            set_currency: conn.prepare_cached(sql::SET_CURRENCY_TOTAL)?,
            add_to_customer: conn.prepare_cached(sql::ADD_CUSTOMER_TOTAL)?,
            currencies: BTreeMap::new(),
        })
    }

    /// Adds to the totals of the customer and of the currency; false, with nothing changed, when one
    /// of them would leave 64 bits.
    pub fn add(&mut self, customer_id: &str, currency: &str, more: Addition) -> Result<bool> {
        if !self.currencies.contains_key(currency) {
            let before = self.find(currency)?;
            self.currencies.insert(currency.to_owned(), Changed { before, now: before });
        }
        // OK because it was put there, if it was not there.
        let changed = self.currencies.get_mut(currency).expect("a known currency");
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

    fn find(&mut self, currency: &str) -> Result<Sums> {
        let sums = self.find_currency.query_row([currency], |row| {
            Ok(Sums {
                invoice_count: row.get(0)?,
                total_cents: row.get(1)?,
                paid_cents: row.get(2)?,
            })
        });
        Ok(sums.optional()?.unwrap_or_default())
    }

    /// Writes the totals of the currencies, and returns what was added to each.
    pub fn save(mut self) -> Result<Vec<CurrencyTotal>> {
        let mut added = Vec::with_capacity(self.currencies.len());
        for (currency, Changed { before, now }) in self.currencies {
            if now == before {
                continue;
            }
            self.set_currency.execute(params![
                currency,
                now.invoice_count,
                now.total_cents,
                now.paid_cents
            ])?;
            added.push(CurrencyTotal {
                currency,
                invoice_count: now.invoice_count - before.invoice_count,
                total_cents: now.total_cents - before.total_cents,
                paid_cents: now.paid_cents - before.paid_cents,
            });
        }
        Ok(added)
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
                let mut totals = Totals::prepare(&without).unwrap();
                let mut expected: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
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
                    let met = expected.entry(currency.clone()).or_default();
                    *met = (met.0 + 1, met.1 + amount, met.2);
                    without.query_row(INSERT, invoice, |_| Ok(())).unwrap();
                    let Some(paid_cents) = payment else { continue };
                    let paid = with.query_row(PAY, params![sequence, paid_cents], |_| Ok(()));
                    let addition = Addition { invoice_count: 0, total_cents: 0, paid_cents };
                    let is_added = totals.add(&customer, &currency, addition).unwrap();
                    prop_assert_eq!(is_added, paid.is_ok());
                    if is_added {
                        without.query_row(PAY, params![sequence, paid_cents], |_| Ok(())).unwrap();
                        met.2 += paid_cents;
                    }
                }
                let added = totals.save().unwrap().into_iter().map(|total| {
                    (total.currency, (total.invoice_count, total.total_cents, total.paid_cents))
                });
                prop_assert_eq!(added.collect::<BTreeMap<_, _>>(), expected);
                prop_assert_eq!(all(&without), all(&with));
            }
        }
    }
}
