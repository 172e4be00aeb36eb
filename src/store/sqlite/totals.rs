//! The kept totals and the last sequences, as the writer keeps them.
//!
//! The triggers of the schema do the same for every other program that writes. On the writer's connection
//! they are switched off: a statement with triggers makes SQLite save each page that it changes, to be able
//! to take the statement back, and the totals of a currency would be written again for each row. (`load ADDR bulk`
//! of benches/compare: 128,000 rows a second; with triggers, and what they save in a file, 40,000.)

use std::collections::HashMap;

use rusqlite::{params, Connection, OptionalExtension};

use crate::error::{Error, Result};
use crate::store::sqlite::read::{last_event_sequence, last_sequence};
use crate::store::sqlite::sql;

/// Customers whose totals wait to be saved, at the most: some 14 MiB with the longest ids. An upload may have
/// any number.
const MAX_CUSTOMERS: usize = 65_536;

/// Totals, or what one invoice or payment adds to them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    pub invoice_count: i64,
    pub total_cents: i64,
    pub paid_cents: i64,
}

impl Sums {
    /// `None` where a sum would leave 64 bits.
    fn plus(self, more: Sums) -> Option<Sums> {
        Some(Sums {
            invoice_count: self.invoice_count.checked_add(more.invoice_count)?,
            total_cents: self.total_cents.checked_add(more.total_cents)?,
            paid_cents: self.paid_cents.checked_add(more.paid_cents)?,
        })
    }
}

/// What a transaction of the writer adds to the totals. It is saved once, at the end: with many small
/// jobs in a commit each would write the same few rows.
#[derive(Clone, Default)]
pub struct Totals {
    currencies: Vec<Currency>,
    /// The customers in them.
    customers: usize,
    /// The last sequence that was given, where one was.
    last_sequence: Option<i64>,
    /// The last event sequence that was given, where one was.
    last_event_sequence: Option<i64>,
}

#[derive(Clone)]
struct Currency {
    code: String,
    before: Sums,
    now: Sums,
    /// The place of each customer in `added`.
    customers: HashMap<String, usize>,
    /// What is added to the totals of each customer.
    added: Vec<Sums>,
}

/// Where the totals of a customer and of a currency are, until they are saved.
#[derive(Clone, Copy)]
pub struct Place {
    currency: usize,
    customer: usize,
}

impl Totals {
    /// Adds to the totals of the customer and of the currency; false, with nothing changed, when one
    /// of them would leave 64 bits. (That of the currency is looked at first.)
    pub fn add(
        &mut self,
        conn: &Connection,
        customer_id: &str,
        currency: &str,
        more: Sums,
    ) -> Result<bool> {
        self.limit(conn)?;
        let place = self.place(conn, customer_id, currency)?;
        Ok(self.add_to(place, more))
    }

    /// Saves what is added to the totals of customers, where those are many.
    pub fn limit(&mut self, conn: &Connection) -> Result<()> {
        if self.customers < MAX_CUSTOMERS {
            return Ok(());
        }
        self.save_customers(conn)
    }

    pub fn place(&mut self, conn: &Connection, customer_id: &str, currency: &str) -> Result<Place> {
        let at = match self.currencies.iter().position(|known| known.code == currency) {
            Some(at) => at,
            None => {
                let before = find(conn, currency)?;
                let (customers, added) = (HashMap::new(), Vec::new());
                let code = currency.to_owned();
                self.currencies.push(Currency { code, before, now: before, customers, added });
                self.currencies.len() - 1
            }
        };
        let known = &mut self.currencies[at];
        let customer = match known.customers.get(customer_id) {
            Some(customer) => *customer,
            None => {
                known.customers.insert(customer_id.to_owned(), known.added.len());
                known.added.push(Sums::default());
                self.customers += 1;
                known.added.len() - 1
            }
        };
        Ok(Place { currency: at, customer })
    }

    /// The code of the currency at `place`.
    pub fn currency(&self, place: Place) -> &str {
        &self.currencies[place.currency].code
    }

    /// As [`Totals::add`], to the totals at `place`.
    pub fn add_to(&mut self, place: Place, more: Sums) -> bool {
        let Currency { now, added, .. } = &mut self.currencies[place.currency];
        let added = &mut added[place.customer];
        let (Some(currency), Some(customer)) = (now.plus(more), added.plus(more)) else {
            return false;
        };
        (*now, *added) = (currency, customer);
        true
    }

    /// Gives the next `count` sequences; returns the one before them.
    pub fn give_sequences(&mut self, conn: &Connection, count: i64) -> Result<i64> {
        let before = match self.last_sequence {
            Some(last) => last,
            None => last_sequence(conn)?,
        };
        let none_left = || Error::Internal("no sequence is left".to_owned());
        self.last_sequence = Some(before.checked_add(count).ok_or_else(none_left)?);
        Ok(before)
    }

    /// The last event sequence that was given.
    pub fn last_event_sequence(&self, conn: &Connection) -> Result<i64> {
        self.last_event_sequence.map_or_else(|| last_event_sequence(conn), Ok)
    }

    /// Says which event sequence was given last.
    pub fn set_last_event_sequence(&mut self, last: i64) {
        self.last_event_sequence = Some(last);
    }

    /// The last sequence and the last event sequence that were given, where one was.
    pub fn given(&self) -> (Option<i64>, Option<i64>) {
        (self.last_sequence, self.last_event_sequence)
    }

    /// Writes what has changed. To be called before the commit.
    pub fn save(&mut self, conn: &Connection) -> Result<()> {
        self.save_customers(conn)?;
        let mut add = conn.prepare_cached(sql::ADD_CURRENCY_TOTAL)?;
        for Currency { code, before, now, .. } in &self.currencies {
            if before != now {
                add.execute(params![
                    code,
                    now.invoice_count - before.invoice_count,
                    now.total_cents - before.total_cents,
                    now.paid_cents - before.paid_cents
                ])?;
            }
        }
        if let Some(last) = self.last_sequence {
            conn.prepare_cached(sql::SET_LAST_SEQUENCE)?.execute([last])?;
        }
        if let Some(last) = self.last_event_sequence {
            conn.prepare_cached(sql::SET_LAST_EVENT_SEQUENCE)?.execute([last])?;
        }
        Ok(())
    }

    /// Writes what is added to the totals of customers. To be called before a savepoint, so that little has to
    /// be put back after a rollback.
    pub fn save_customers(&mut self, conn: &Connection) -> Result<()> {
        let mut add = conn.prepare_cached(sql::ADD_CUSTOMER_TOTAL)?;
        let mut pay = conn.prepare_cached(sql::PAY_CUSTOMER)?;
        for known in &mut self.currencies {
            let (code, added) = (&known.code, std::mem::take(&mut known.added));
            let mut customers: Vec<_> = known.customers.drain().collect();
            // The order in which they lie.
            customers.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            for (customer_id, place) in customers {
                let sums = added[place];
                let Sums { invoice_count, total_cents, paid_cents } = sums;
                // Nothing that was looked for came to it.
                if sums == Sums::default() {
                    continue;
                }
                // Payments alone find the row of their invoice's customer, at half the cost.
                let is_payment = (invoice_count, total_cents) == (0, 0);
                if is_payment && pay.execute(params![paid_cents, customer_id, code])? == 1 {
                    continue;
                }
                add.execute(params![customer_id, code, invoice_count, total_cents, paid_cents])?;
            }
        }
        self.customers = 0;
        Ok(())
    }
}

fn find(conn: &Connection, currency: &str) -> Result<Sums> {
    let mut find = conn.prepare_cached(sql::FIND_CURRENCY_TOTAL)?;
    let sums = find.query_row([currency], |row| {
        Ok(Sums { invoice_count: row.get(0)?, total_cents: row.get(1)?, paid_cents: row.get(2)? })
    });
    Ok(sums.optional()?.unwrap_or_default())
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
        VALUES (?1, ?1, ?2, ?3, ?4, 1, 0, 0, 0, '', 0) RETURNING sequence";
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
            saves in prop::collection::vec(any::<bool>(), 32),
        ) {
            let (with, without) = (database(true), database(false));
            let mut sequence = 0;
            for job in jobs {
                let mut totals = Totals::default();
                for (customer, currency, amount, payment) in job {
                    sequence += 1;
                    if saves[sequence as usize % saves.len()] {
                        totals.save_customers(&without).unwrap();
                    }
                    let invoice = params![sequence, customer, amount, currency];
                    let created = with.query_row(INSERT, invoice, |row| row.get::<_, i64>(0));
                    let addition = Sums { invoice_count: 1, total_cents: amount, paid_cents: 0 };
                    let is_added = totals.add(&without, &customer, &currency, addition).unwrap();
                    prop_assert_eq!(is_added, created.is_ok());
                    if !is_added {
                        continue;
                    }
                    without.query_row(INSERT, invoice, |_| Ok(())).unwrap();
                    let Some(paid_cents) = payment else { continue };
                    let paid = with.query_row(PAY, params![sequence, paid_cents], |_| Ok(()));
                    let addition = Sums { paid_cents, ..Sums::default() };
                    let is_added = totals.add(&without, &customer, &currency, addition).unwrap();
                    prop_assert_eq!(is_added, paid.is_ok());
                    if is_added {
                        without.query_row(PAY, params![sequence, paid_cents], |_| Ok(())).unwrap();
                    }
                }
                totals.save(&without).unwrap();
                prop_assert_eq!(all(&without), all(&with));
            }
        }
    }
}
