//! The SQL function that encodes, `push_invoice`: its arguments cost SQLite and rusqlite less than the columns
//! of a row do (`cargo bench --bench floors`, step_and_encode: 2.5 million rows a second with columns, 3.3
//! million with the function).

use std::cell::RefCell;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Null, ValueRef};
use rusqlite::{Connection, Row, Rows};

use crate::error::{Error, Result};
use crate::store::encode::{Chunk, Columns};

thread_local! {
    /// The chunk of the statement that is being stepped on this thread.
    static CHUNK: RefCell<Chunk> = RefCell::default();
}

/// The columns of an invoice, in the order of the arguments of `push_invoice`.
const COLUMNS: [&str; 10] = [
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

/// Gives a connection the SQL function `push_invoice`, which appends its arguments as an invoice to the
/// chunk of the thread, and returns NULL.
pub fn add_push_invoice(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("push_invoice", COLUMNS.len() as i32, flags, |row| {
        let pushed = columns(row).map(|row| CHUNK.with_borrow_mut(|chunk| chunk.push(&row)));
        pushed.map(|()| Null).map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))
    })
}

/// Steps a statement that pushes invoices, to `chunk`. `each` sees the chunk after every row that was read,
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

/// The `sequence` of a row that [`push_rows`] shows, the last of `chunk` if it was pushed.
pub fn sequence(chunk: &Chunk, row: &Row<'_>) -> Result<i64> {
    let passed_over: Option<i64> = row.get(0)?;
    Ok(passed_over.unwrap_or_else(|| chunk.last_sequence()))
}

fn columns<'a>(row: &'a Context<'_>) -> Result<Columns<'a>> {
    Ok(Columns {
        sequence: integer(row, 0)?,
        invoice_id: text(row, 1)?,
        customer_id: text(row, 2)?,
        total_amount_cents: integer(row, 3)?,
        currency: text(row, 4)?,
        status: integer(row, 5)?,
        paid_cents: integer(row, 6)?,
        issued_at: integer(row, 7)?,
        issued_at_nanos: integer(row, 8)?,
        memo: text(row, 9)?,
    })
}

fn integer(row: &Context<'_>, column: usize) -> Result<i64> {
    row.get_raw(column).as_i64().map_err(|e| unreadable(row, column, &e))
}

/// Text that is UTF-8, as a message may hold nothing else. Most is ASCII, which is seen in less time.
fn text<'a>(row: &'a Context<'_>, column: usize) -> Result<&'a [u8]> {
    match row.get_raw(column) {
        ValueRef::Text(text) if text.is_ascii() => Ok(text),
        other => other.as_str().map(str::as_bytes).map_err(|e| unreadable(row, column, &e)),
    }
}

/// A value that the schema forbids: text that is not UTF-8, put there by another program.
fn unreadable(row: &Context<'_>, column: usize, why: &dyn std::fmt::Display) -> Error {
    let sequence: i64 = row.get(0).unwrap_or_default();
    Error::Internal(format!("invoices.{} of sequence {sequence}: {why}", COLUMNS[column]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        add_push_invoice(&conn).unwrap();
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
    fn text_that_is_no_utf_8_is_named() {
        let conn = connection();
        let push = "SELECT push_invoice(7, 'a', 'c', 1, 'EUR', 1, 0, 0, 0, CAST(x'61ff' AS TEXT))";
        let error = Error::from(conn.query_row(push, [], |_| Ok(())).unwrap_err()).to_string();
        assert!(error.contains("invoices.memo of sequence 7: "), "{error}");
    }
}
