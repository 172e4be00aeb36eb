//! An invoice, and the events that were applied to it.

use rusqlite::{named_params, Connection};

use crate::error::Result;
use crate::store::encode::Chunk;
use crate::store::sqlite::push::push_rows;
use crate::store::sqlite::read::in_transaction;
use crate::store::sqlite::sql;
use crate::store::History;

/// The invoice with its newest events of those before the event_sequence `before`, at most `max_events`, and at
/// least one where there is one.
pub fn history(
    conn: &Connection,
    invoice_id: &str,
    max_events: usize,
    before: i64,
) -> Result<Option<History>> {
    in_transaction(conn, |conn| {
        let mut find = conn.prepare_cached(sql::INVOICE)?;
        let mut found = find.query(named_params! { ":invoice_id": invoice_id })?;
        let invoice = push_rows(&mut found, Chunk::default(), |_, _| Ok(true))?;
        if invoice.is_empty() {
            return Ok(None);
        }
        let mut walk = conn.prepare_cached(sql::EVENTS_OF_INVOICE)?;
        let params = named_params! { ":invoice_id": invoice_id, ":before": before };
        let mut next_before = None;
        let events = push_rows(&mut walk.query(params)?, Chunk::default(), |events, row| {
            let previous: i64 = row.get(1)?;
            next_before = (previous > 0).then(|| events.last_sequence());
            Ok(events.len() < max_events)
        })?;
        Ok(Some(History { invoice, events, next_before }))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::store::{Store, Wait};

    /// Two invoices of which every third event is of the first, as the writer would have them.
    fn database(events: i64) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        Store::open(&config, &Arc::default()).unwrap().1.stop();
        let conn = Connection::open(&config.db).unwrap();
        let invoices =
            "INSERT INTO invoices VALUES (1, 'a', 'c', 9, 'EUR', 1, 0, 0, 0, '', ?1 / 3 * 3),
                                                    (2, 'b', 'c', 9, 'EUR', 1, 0, 0, 0, '', ?1),
                                                    (3, 'none', 'c', 9, 'EUR', 1, 0, 0, 0, '', 0)";
        conn.execute(invoices, [events]).unwrap();
        let events_of = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO reconcile_events
             SELECT i, CASE WHEN i % 3 = 0 THEN i - 3 WHEN i = 1 THEN 0 ELSE i - 2 + (i % 3 = 2) END, i,
                    iif(i % 3 = 0, 'a', 'b'), 1, 1, 'EUR', 0, 0, '', 1, 2, 0 FROM n";
        conn.execute(events_of, [events]).unwrap();
        (dir, config)
    }

    fn sequences(events: &Chunk) -> Vec<i64> {
        (0..events.len()).map(|i| events.sequence(i)).collect()
    }

    #[test]
    fn pages_of_a_history_are_all_of_it_newest_first_whatever_their_size() {
        let (_dir, config) = database(100);
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        for (id, is_its) in [("a", (|i| i % 3 == 0) as fn(i64) -> bool), ("b", |i| i % 3 != 0)] {
            let expected: Vec<_> = (1..=100).rev().filter(|i| is_its(*i)).collect();
            for size in [1, 7, 33, 67, 1000] {
                let (mut before, mut all) = (i64::MAX, Vec::new());
                loop {
                    let page = store.history(id, size, before, Wait::No).unwrap().unwrap();
                    assert!(page.events.len() <= size);
                    all.extend(sequences(&page.events));
                    let Some(next) = page.next_before else { break };
                    before = next;
                }
                assert_eq!(all, expected, "{id} {size}");
            }
        }
        thread.stop();
    }

    #[test]
    fn any_number_may_be_gone_on_from_and_what_there_is_not_has_no_history() {
        let (_dir, config) = database(100);
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let read = |id, before| store.history(id, 2, before, Wait::No).unwrap();
        for before in 1..110 {
            let page = read("a", before).unwrap();
            let expected: Vec<_> =
                (1..before.min(101)).rev().filter(|i| i % 3 == 0).take(2).collect();
            assert_eq!(sequences(&page.events), expected, "{before}");
            assert_eq!(page.invoice.sequence(0), 1);
        }
        let none = read("none", i64::MAX).unwrap();
        assert_eq!((none.invoice.len(), none.events.len(), none.next_before), (1, 0, None));
        assert!(read("c", i64::MAX).is_none());
        thread.stop();
    }

    /// Its statement follows the events of the invoice, and reads no others.
    #[test]
    fn a_page_costs_what_it_gives() {
        let steps = |events| {
            let (_dir, config) = database(events);
            let conn = Connection::open(&config.db).unwrap();
            crate::store::sqlite::push::add_push_functions(&conn).unwrap();
            history(&conn, "b", 100, i64::MAX).unwrap().unwrap();
            let walk = conn.prepare_cached(sql::EVENTS_OF_INVOICE).unwrap();
            walk.get_status(rusqlite::StatementStatus::VmStep)
        };
        let (few, many) = (steps(200), steps(50_000));
        assert!(few > 100 && many < 2 * few, "{few} instructions of 200 events, {many} of 50,000");
    }
}
