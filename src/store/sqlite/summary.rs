//! Counts and sums of invoices: those that are kept, and those of a range of dates.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{named_params, Connection, Row};

use crate::error::{Error, Result};
use crate::model::{CurrencyTotal, Filter, Status, Summary, Sums};
use crate::store::sqlite::read::{in_transaction, last_event_sequence, last_sequence};
use crate::store::sqlite::sql;
use crate::store::sqlite::totals::read_sums;

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
        summary.last_sequence = row.get(0)?;
        summary.last_event_sequence = row.get(1)?;
        // Where there is none, there is no invoice.
        if row.get_ref(2)? != ValueRef::Null {
            summary.totals.push(total(row, 2)?);
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

/// The kept totals of a statement that gives the currency and the columns of its sums.
pub fn totals(
    conn: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<CurrencyTotal>> {
    let mut statement = conn.prepare_cached(statement)?;
    let totals =
        statement.query_map(params, |row| total(row, 0))?.collect::<rusqlite::Result<_>>()?;
    Ok(totals)
}

/// A row from the column of its currency on.
fn total(row: &Row<'_>, first: usize) -> rusqlite::Result<CurrencyTotal> {
    Ok(CurrencyTotal { currency: row.get(first)?, sums: read_sums(row, first + 1)? })
}

/// The totals of the invoices of a statement, which gives currency, total, paid and status of each, in the order
/// of the currency. They are added here: SQLite's GROUP BY sorts all rows, in memory.
pub fn sums(
    conn: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<CurrencyTotal>> {
    let mut statement = conn.prepare_cached(statement)?;
    let mut rows = statement.query(params)?;
    let mut totals: BTreeMap<String, Sums> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let currency = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let is_void = row.get::<_, i32>(3)? == Status::Void as i32;
        let invoice = Sums::of(row.get(1)?, row.get(2)?, is_void);
        let sums = match totals.get_mut(currency) {
            Some(sums) => sums,
            None => totals.entry(currency.to_owned()).or_default(),
        };
        *sums = sums
            .plus(invoice)
            .ok_or_else(|| Error::Internal(format!("a sum of {currency} leaves 64 bits")))?;
    }
    let total = |(currency, sums)| CurrencyTotal { currency, sums };
    Ok(totals.into_iter().map(total).collect())
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
            let numbers = |s: Sums| (s.invoice_count, s.total_cents, s.paid_cents);
            totals.map(|t| (t.currency, numbers(t.sums))).collect::<Vec<_>>()
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
}
