//! The SQL functions that encode, `push_invoice` and `push_event`: their arguments cost SQLite and rusqlite less than the columns
//! of a row do (`cargo bench --bench floors`, step_and_encode: 2.5 million rows a second with columns, 3.3
//! million with the function).

use std::cell::RefCell;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Null, ValueRef};
use rusqlite::{Connection, Row, Rows};

use crate::error::{Error, Result};
use crate::store::encode::{Chunk, Columns, EventColumns};

thread_local! {
    /// The chunk of the statement that is being stepped on this thread.
    static CHUNK: RefCell<Chunk> = RefCell::default();
}

/// The columns of an invoice, in the order of the arguments of `push_invoice`, after the name of their table.
const INVOICE: [&str; 11] = [
    "invoices",
    "sequence",
    "invoice_id",
    "customer_id",
    "total_amount_cents",
    "currency",
    "status",
    "paid_cents",
    "issued_at",
    "issued_at_nanos",
    "memo",
];

/// The same of an event and `push_event`.
const EVENT: [&str; 13] = [
    "reconcile_events",
    "event_sequence",
    "event_id",
    "invoice_id",
    "kind",
    "amount_cents",
    "currency",
    "received_at",
    "received_at_nanos",
    "reference",
    "outcome",
    "invoice_status",
    "outstanding_cents",
];

/// Gives a connection the SQL functions `push_invoice` and `push_event`, which append their arguments as a row to
/// the chunk of the thread, and return NULL.
pub fn add_push_functions(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    let pushed = |pushed: Result<()>| {
        pushed.map(|()| Null).map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))
    };
    conn.create_scalar_function("push_invoice", INVOICE.len() as i32 - 1, flags, move |row| {
        pushed(columns(row).map(|row| CHUNK.with_borrow_mut(|chunk| chunk.push(&row))))
    })?;
    conn.create_scalar_function("push_event", EVENT.len() as i32 - 1, flags, move |row| {
        pushed(event_columns(row).map(|row| CHUNK.with_borrow_mut(|chunk| chunk.push(&row))))
    })
}

/// Steps a statement that pushes rows, to `chunk`. `each` sees the chunk after every row that was read,
/// pushed or not, and the row, until it returns false. Returns what the chunk holds then.
pub fn push_rows(
    rows: &mut Rows<'_>,
    chunk: Chunk,
    mut each: impl FnMut(&mut Chunk, &Row<'_>) -> Result<bool>,
) -> Result<Chunk> {
    CHUNK.set(chunk);
    while let Some(row) = rows.next()? {
        if !CHUNK.with_borrow_mut(|chunk| each(chunk, row))? {
            break;
        }
    }
    Ok(CHUNK.take())
}

/// The sequence of a row that [`push_rows`] shows, the last of `chunk` if it was pushed.
pub fn sequence(chunk: &Chunk, row: &Row<'_>) -> Result<i64> {
    let passed_over: Option<i64> = row.get(0)?;
    Ok(passed_over.unwrap_or_else(|| chunk.last_sequence()))
}

fn columns<'a>(row: &'a Context<'_>) -> Result<Columns<'a>> {
    let row = Arguments { row, names: &INVOICE };
    Ok(Columns {
        sequence: row.integer(0)?,
        invoice_id: row.text(1)?,
        customer_id: row.text(2)?,
        total_amount_cents: row.integer(3)?,
        currency: row.text(4)?,
        status: row.integer(5)?,
        paid_cents: row.integer(6)?,
        issued_at: row.integer(7)?,
        issued_at_nanos: row.integer(8)?,
        memo: row.text(9)?,
    })
}

fn event_columns<'a>(row: &'a Context<'_>) -> Result<EventColumns<'a>> {
    let row = Arguments { row, names: &EVENT };
    Ok(EventColumns {
        event_sequence: row.integer(0)?,
        event_id: row.text(1)?,
        invoice_id: row.text(2)?,
        kind: row.integer(3)?,
        amount_cents: row.integer(4)?,
        currency: row.text(5)?,
        received_at: row.integer(6)?,
        received_at_nanos: row.integer(7)?,
        reference: row.text(8)?,
        outcome: row.integer(9)?,
        invoice_status: row.integer(10)?,
        outstanding_cents: row.integer(11)?,
    })
}

struct Arguments<'a> {
    row: &'a Context<'a>,
    /// The table, and its columns.
    names: &'static [&'static str],
}

impl<'a> Arguments<'a> {
    fn integer(&self, column: usize) -> Result<i64> {
        self.row.get_raw(column).as_i64().map_err(|e| self.unreadable(column, &e))
    }

    /// Text that is UTF-8, as a message may hold nothing else. Most is ASCII, which is seen in less time.
    fn text(&self, column: usize) -> Result<&'a [u8]> {
        match self.row.get_raw(column) {
            ValueRef::Text(text) if text.is_ascii() => Ok(text),
            other => other.as_str().map(str::as_bytes).map_err(|e| self.unreadable(column, &e)),
        }
    }

    /// A value that the schema forbids: text that is not UTF-8, put there by another program.
    fn unreadable(&self, column: usize, why: &dyn std::fmt::Display) -> Error {
        let sequence: i64 = self.row.get(0).unwrap_or_default();
        let (table, column) = (self.names[0], self.names[1 + column]);
        Error::Internal(format!("{table}.{column} of sequence {sequence}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        add_push_functions(&conn).unwrap();
        conn
    }

    #[test]
    fn the_arguments_are_the_columns_in_their_order() {
        let conn = connection();
        let rows = "SELECT push_invoice(1, 'a', 'c', 2, 'EUR', 3, 4, 5, 6, 'm\u{e9}')
            UNION ALL SELECT push_invoice(7, '', '', 0, '', 0, 0, 0, 0, '')";
        let mut rows = conn.prepare(rows).unwrap();
        let pushed = push_rows(&mut rows.query([]).unwrap(), Chunk::default(), |_, _| Ok(true));
        let full = Columns {
            sequence: 1,
            invoice_id: b"a",
            customer_id: b"c",
            total_amount_cents: 2,
            currency: b"EUR",
            status: 3,
            paid_cents: 4,
            issued_at: 5,
            issued_at_nanos: 6,
            memo: "m\u{e9}".as_bytes(),
        };
        let mut expected = Chunk::default();
        expected.push(&full);
        expected.push(&Columns { sequence: 7, ..Columns::default() });
        assert_eq!(pushed.unwrap().batch(), expected.batch());
    }

    #[test]
    fn the_same_of_an_event() {
        let conn = connection();
        let row = "SELECT push_event(1, 'e', 'a', 2, 3, 'EUR', 4, 5, 'r', 6, 7, 8)";
        let mut row = conn.prepare(row).unwrap();
        let pushed = push_rows(&mut row.query([]).unwrap(), Chunk::default(), |_, _| Ok(true));
        let mut expected = Chunk::default();
        expected.push(&EventColumns {
            event_sequence: 1,
            event_id: b"e",
            invoice_id: b"a",
            kind: 2,
            amount_cents: 3,
            currency: b"EUR",
            received_at: 4,
            received_at_nanos: 5,
            reference: b"r",
            outcome: 6,
            invoice_status: 7,
            outstanding_cents: 8,
        });
        assert_eq!(pushed.unwrap().batch(), expected.batch());
    }

    #[test]
    fn text_that_is_no_utf_8_is_named() {
        let conn = connection();
        let push = "SELECT push_invoice(7, 'a', 'c', 1, 'EUR', 1, 0, 0, 0, CAST(x'61ff' AS TEXT))";
        let error = Error::from(conn.query_row(push, [], |_| Ok(())).unwrap_err()).to_string();
        assert!(error.contains("invoices.memo of sequence 7: "), "{error}");
        let push =
            "SELECT push_event(8, 'e', 'a', 1, 2, 'EUR', 0, 0, CAST(x'61ff' AS TEXT), 1, 2, 0)";
        let error = Error::from(conn.query_row(push, [], |_| Ok(())).unwrap_err()).to_string();
        assert!(error.contains("reconcile_events.reference of sequence 8: "), "{error}");
    }
}
