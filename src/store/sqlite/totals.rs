//! The kept totals and the last sequences, as the writer keeps them.
//!
//! The triggers of the schema do the same for every other program that writes. On the writer's connection
//! they are switched off: a statement with triggers makes SQLite save each page that it changes, to be able
//! to take the statement back, and the totals of a currency would be written again for each row. (`load ADDR bulk`
//! of benches/compare: 128,000 rows a second; with triggers, and what they save in a file, 40,000.)

use std::collections::HashMap;

use rusqlite::{params, params_from_iter, Connection, OptionalExtension, Row, ToSql};

use crate::error::{Error, Result};
use crate::model::Sums;
use crate::store::sqlite::read::{last_event_sequence, last_sequence};
use crate::store::sqlite::sql;

/// Customers whose totals wait to be saved, at the most: some 14 MiB with the longest ids. An upload may have
/// any number.
const MAX_CUSTOMERS: usize = 65_536;

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
    /// of them would leave 64 bits. (Those of the customer are among the parts of the currency's that fit.)
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
        let currency = now.plus(more).filter(Sums::fit);
        let (Some(currency), Some(customer)) = (currency, added.plus(more)) else {
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
        let mut set = conn.prepare_cached(sql::SET_CURRENCY_TOTAL)?;
        for Currency { code, before, now, .. } in &self.currencies {
            if before != now {
                let key = [code as &dyn ToSql].into_iter();
                set.execute(params_from_iter(key.chain(columns(now))))?;
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
                // Nothing that was looked for came to it.
                if sums == Sums::default() {
                    continue;
                }
                // Payments alone find the row of their invoice's customer, at half the cost.
                let Sums { paid_cents, credit_note_paid_cents, .. } = sums;
                let is_payment =
                    sums == Sums { paid_cents, credit_note_paid_cents, ..Sums::default() };
                let paid = params![paid_cents, credit_note_paid_cents, customer_id, code];
                if is_payment && pay.execute(paid)? == 1 {
                    continue;
                }
                let key = [&customer_id as &dyn ToSql, code].into_iter();
                add.execute(params_from_iter(key.chain(columns(&sums))))?;
            }
        }
        self.customers = 0;
        Ok(())
    }
}

fn find(conn: &Connection, currency: &str) -> Result<Sums> {
    let mut find = conn.prepare_cached(sql::FIND_CURRENCY_TOTAL)?;
    let sums = find.query_row([currency], |row| read_sums(row, 0));
    Ok(sums.optional()?.unwrap_or_default())
}

/// The sums in the columns of a row from `first` on, in the order of the tables.
pub fn read_sums(row: &Row<'_>, first: usize) -> rusqlite::Result<Sums> {
    Ok(Sums {
        invoice_count: row.get(first)?,
        total_cents: row.get(first + 1)?,
        paid_cents: row.get(first + 2)?,
        credit_note_count: row.get(first + 3)?,
        credit_note_cents: row.get(first + 4)?,
        void_count: row.get(first + 5)?,
        void_cents: row.get(first + 6)?,
        credit_note_paid_cents: row.get(first + 7)?,
    })
}

/// The same, to be written.
fn columns(sums: &Sums) -> [&dyn ToSql; 8] {
    [
        &sums.invoice_count,
        &sums.total_cents,
        &sums.paid_cents,
        &sums.credit_note_count,
        &sums.credit_note_cents,
        &sums.void_count,
        &sums.void_cents,
        &sums.credit_note_paid_cents,
    ]
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
        VALUES (?1, ?1, ?2, ?3, ?4, 1, 0, 0, 0, '', 0) RETURNING customer_id, currency";
    const CHANGE: &str = "UPDATE invoices SET paid_cents = paid_cents + ?2, status = ?3
        WHERE sequence = ?1 RETURNING customer_id, currency";

    fn all(conn: &Connection) -> Vec<String> {
        let mut statement = conn
            .prepare(
                "SELECT 'all', * FROM currency_totals
                 UNION ALL SELECT * FROM customer_totals ORDER BY 1, 2",
            )
            .unwrap();
        let line = |row: &rusqlite::Row<'_>| {
            Ok(format!("{:?}", (0..10).map(|i| row.get_ref(i).unwrap()).collect::<Vec<_>>()))
        };
        statement.query_map([], line).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// So much that some jobs fill a sum, and that one does not: what it adds for a customer fits.
    const LARGE: i64 = i64::MAX / 16;

    fn cents() -> impl Strategy<Value = i64> {
        let cents = prop_oneof![0..1000i64, Just(LARGE), Just(LARGE - 500)];
        (cents, prop::bool::weighted(0.2))
            .prop_map(|(cents, is_under)| if is_under { -cents } else { cents })
    }

    /// What is added to what is paid of an invoice, and whether it is void after it.
    fn changes() -> impl Strategy<Value = Vec<(i64, bool)>> {
        prop::collection::vec((cents(), prop::bool::weighted(0.2)), 0..3)
    }

    /// A statement with triggers, and an addition with the same statement without them.
    struct Both {
        with: Connection,
        without: Connection,
        totals: Totals,
    }

    impl Both {
        /// Whether it was done.
        fn run(
            &mut self,
            statement: &str,
            params: &[&dyn ToSql],
            more: Sums,
        ) -> std::result::Result<bool, TestCaseError> {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            self.without.execute_batch("SAVEPOINT job").unwrap();
            let done = self.without.query_row(statement, params, read);
            let is_done = match done {
                Ok((customer, currency)) => {
                    let (customer, currency): (String, String) = (customer, currency);
                    let Both { totals, without, .. } = self;
                    totals.add(without, &customer, &currency, more).unwrap()
                }
                // An invoice does not get past what is paid of it.
                Err(_) => false,
            };
            if !is_done {
                self.without.execute_batch("ROLLBACK TO job").unwrap();
            }
            self.without.execute_batch("RELEASE job").unwrap();
            let triggered = self.with.query_row(statement, params, |_| Ok(()));
            prop_assert_eq!(is_done, triggered.is_ok(), "{:?}", triggered);
            Ok(is_done)
        }
    }

    proptest! {
        /// What a trigger refuses is refused here, and what it adds is added.
        #[test]
        fn they_are_what_the_triggers_would_keep(
            jobs in prop::collection::vec(
                prop::collection::vec(("[ab]", "(USD|EUR)", cents(), changes()), 1..8),
                1..5,
            ),
            saves in prop::collection::vec(any::<bool>(), 32),
        ) {
            let (with, without) = (database(true), database(false));
            let mut both = Both { with, without, totals: Totals::default() };
            let mut sequence = 0;
            for job in jobs {
                both.totals = Totals::default();
                for (customer, currency, amount, changes) in job {
                    sequence += 1;
                    if saves[sequence as usize % saves.len()] {
                        both.totals.save_customers(&both.without).unwrap();
                    }
                    let invoice: [&dyn ToSql; 4] = [&sequence, &customer, &amount, &currency];
                    let (mut paid, mut is_void) = (0, false);
                    if !both.run(INSERT, &invoice, Sums::of(amount, 0, false))? {
                        continue;
                    }
                    for (cents, is_void_then) in changes {
                        let before = Sums::of(amount, paid, is_void);
                        let Some(after_paid) = paid.checked_add(cents) else { continue };
                        let more = less(Sums::of(amount, after_paid, is_void_then), before);
                        let status = if is_void_then { 5 } else { 2 };
                        if both.run(CHANGE, &[&sequence, &cents, &status], more)? {
                            (paid, is_void) = (after_paid, is_void_then);
                        }
                    }
                }
                both.totals.save(&both.without).unwrap();
                prop_assert_eq!(all(&both.without), all(&both.with));
            }
        }
    }

    fn less(after: Sums, before: Sums) -> Sums {
        Sums {
            invoice_count: after.invoice_count - before.invoice_count,
            total_cents: after.total_cents - before.total_cents,
            paid_cents: after.paid_cents - before.paid_cents,
            credit_note_count: after.credit_note_count - before.credit_note_count,
            credit_note_cents: after.credit_note_cents - before.credit_note_cents,
            void_count: after.void_count - before.void_count,
            void_cents: after.void_cents - before.void_cents,
            credit_note_paid_cents: after.credit_note_paid_cents - before.credit_note_paid_cents,
        }
    }
}
