//! Counts and sums of invoices: those that are kept, and those of a range of dates.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{named_params, Connection, Row};

use crate::error::{Error, Result};
use crate::model::{CurrencyTotal, Filter, Summary};
use crate::store::sqlite::read::{in_transaction, last_event_sequence, last_sequence};
use crate::store::sqlite::sql;

/// Counts and sums by currency, and the highest sequence. Of `filter`, the customer and the dates.
pub fn summary(conn: &Connection, filter: &Filter) -> Result<Summary> {
    if filter.customer_id.is_empty() && !filter.has_dates() {
        return summary_of_all(conn);
    }
    in_transaction(conn, |conn| summary_of_some(conn, filter))
}

/// In one statement: this is the call that is made most.
fn summary_of_all(conn: &Connection) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut statement = conn.prepare_cached(sql::SUMMARY)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        summary.last_sequence = row.get(4)?;
        summary.last_event_sequence = row.get(5)?;
        // Where there is none, there is no invoice.
        if row.get_ref(0)? != ValueRef::Null {
            summary.totals.push(total(row)?);
        }
    }
    Ok(summary)
}

fn summary_of_some(conn: &Connection, filter: &Filter) -> Result<Summary> {
    let dates = named_params! {
        ":from": filter.issued_from.seconds, ":from_nanos": filter.issued_from.nanos,
        ":before": filter.issued_until.seconds, ":before_nanos": filter.issued_until.nanos,
    };
    let mut params = Vec::new();
    if !filter.customer_id.is_empty() {
        params.push((":customer_id", &filter.customer_id as &dyn rusqlite::ToSql));
    }
    if filter.has_dates() {
        params.extend_from_slice(dates);
    }
    let totals = match (filter.customer_id.is_empty(), filter.has_dates()) {
        (true, _) => sums(conn, sql::SUMMARY_BY_DATE, &params[..])?,
        (false, false) => totals(conn, sql::SUMMARY_BY_CUSTOMER, &params[..])?,
        (false, true) => sums(conn, sql::SUMMARY_BY_CUSTOMER_AND_DATE, &params[..])?,
    };
    let (last_sequence, last_event_sequence) = (last_sequence(conn)?, last_event_sequence(conn)?);
    Ok(Summary { totals, last_sequence, last_event_sequence })
}

/// The kept totals of a statement that gives currency, count, total and paid.
pub fn totals(
    conn: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<CurrencyTotal>> {
    let mut statement = conn.prepare_cached(statement)?;
    let totals = statement.query_map(params, total)?.collect::<rusqlite::Result<_>>()?;
    Ok(totals)
}

fn total(row: &Row<'_>) -> rusqlite::Result<CurrencyTotal> {
    Ok(CurrencyTotal {
        currency: row.get(0)?,
        invoice_count: row.get(1)?,
        total_cents: row.get(2)?,
        paid_cents: row.get(3)?,
    })
}

/// The totals of the invoices of a statement, which gives currency, total and paid of each, in the order of
/// the currency. They are added here: SQLite's GROUP BY sorts all rows, in memory.
pub fn sums(
    conn: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<CurrencyTotal>> {
    let mut statement = conn.prepare_cached(statement)?;
    let mut rows = statement.query(params)?;
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let currency = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let sum = match sums.get_mut(currency) {
            Some(sum) => sum,
            None => sums.entry(currency.to_owned()).or_default(),
        };
        sum.add(row.get(1)?, row.get(2)?);
    }
    sums.into_iter().map(|(currency, sum)| sum.total(currency)).collect()
}

/// The sums of one currency. Their order does not matter: none leaves 128 bits on the way.
#[derive(Default)]
struct Sum {
    invoice_count: i64,
    total_cents: i128,
    paid_cents: i128,
}

impl Sum {
    fn add(&mut self, total_cents: i64, paid_cents: i64) {
        self.invoice_count += 1;
        self.total_cents += i128::from(total_cents);
        self.paid_cents += i128::from(paid_cents);
    }

    fn total(self, currency: String) -> Result<CurrencyTotal> {
        let (Ok(total_cents), Ok(paid_cents)) =
            (self.total_cents.try_into(), self.paid_cents.try_into())
        else {
            return Err(Error::Internal(format!("a sum of {currency} leaves 64 bits")));
        };
        let invoice_count = self.invoice_count;
        Ok(CurrencyTotal { currency, invoice_count, total_cents, paid_cents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::stop::Stop;
    use crate::store::sqlite::read::tests::database;
    use crate::store::Wait;

    #[test]
    fn sums_by_date_are_those_of_the_rows() {
        let (_dir, store, thread) = database(300);
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let sums = |customer_id: &str, from, until| {
            let filter = Filter {
                customer_id: customer_id.to_owned(),
                issued_from: at(from),
                issued_until: at(until),
                ..Filter::ALL
            };
            let summary = store.summary(&filter, Wait::Until(&Stop::default())).unwrap();
            assert_eq!(summary.last_sequence, 300);
            let totals = summary.totals.into_iter();
            let numbers = |t: CurrencyTotal| (t.invoice_count, t.total_cents, t.paid_cents);
            totals.map(|t| (t.currency.clone(), numbers(t))).collect::<Vec<_>>()
        };
        let total = |currency: &str, numbers| (currency.to_owned(), numbers);
        // Those of 1 to 9, and of them the odd ones.
        let all = [total("EUR", (3, 12, 2)), total("JPY", (3, 15, 1)), total("USD", (3, 18, 2))];
        assert_eq!(sums("", 0, 9), all);
        let odd = [total("EUR", (2, 8, 2)), total("JPY", (1, 5, 1)), total("USD", (2, 12, 2))];
        assert_eq!(sums("c1", 0, 9), odd);
        assert_eq!(sums("", 300, 400), []);
        thread.stop();
    }

    #[test]
    fn a_sum_that_leaves_64_bits_is_an_error_and_one_that_comes_back_is_none() {
        let mut sum = Sum::default();
        sum.add(i64::MAX, 0);
        sum.add(1, 0);
        sum.add(-1, 0);
        let most = CurrencyTotal {
            currency: "USD".to_owned(),
            invoice_count: 3,
            total_cents: i64::MAX,
            paid_cents: 0,
        };
        assert_eq!(sum.total("USD".to_owned()), Ok(most));
        let mut sum = Sum::default();
        (0..2).for_each(|_| sum.add(0, i64::MAX));
        assert!(matches!(sum.total("USD".to_owned()), Err(Error::Internal(_))));
    }
}
