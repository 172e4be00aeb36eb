//! From the columns of a row to protobuf bytes: no `Invoice` and no `String` in between. As in billstream,
//! SQL functions do it, because their arguments cost less than the columns of a row.

use std::cell::RefCell;

use prost::encoding::{encode_varint, encoded_len_varint};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::Connection;

/// Encodes a row, and returns its sequence.
type Push = fn(&Context<'_>, &mut Vec<u8>) -> rusqlite::Result<i64>;

thread_local! {
    /// What the statement that this thread steps has encoded.
    static BUFFER: RefCell<Vec<u8>> = RefCell::default();
}

/// Gives a connection the functions `push_invoice` and `push_entry`, which append their arguments to the
/// thread's buffer, and return the sequence.
pub fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    for (name, push) in [("push_invoice", invoice as Push), ("push_entry", entry)] {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        connection.create_scalar_function(name, 10, flags, move |row| {
            BUFFER.with_borrow_mut(|buffer| push(row, buffer))
        })?;
    }
    Ok(())
}

/// Runs `read`, whose statements push, and returns with its result what they pushed.
pub fn pushed<T, E>(
    capacity: usize,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<(T, Vec<u8>), E> {
    BUFFER.set(Vec::with_capacity(capacity));
    let result = read()?;
    Ok((result, BUFFER.take()))
}

/// How much was pushed so far.
pub fn pushed_bytes() -> usize {
    BUFFER.with_borrow(Vec::len)
}

/// Forgets what was pushed.
pub fn clear_pushed() {
    BUFFER.with_borrow_mut(Vec::clear);
}

/// The columns of one row, in the order of [`crate::store::COLUMNS`], borrowed from SQLite.
struct Columns<'a> {
    /// sequence, total, status, paid, and the two parts of issued_at.
    integers: [i64; 6],
    /// invoice id, customer id, currency and memo.
    texts: [&'a [u8]; 4],
}

impl<'a> Columns<'a> {
    fn of(row: &'a Context<'_>) -> rusqlite::Result<Columns<'a>> {
        let mut columns = Columns { integers: [0; 6], texts: [&[]; 4] };
        for (value, column) in columns.integers.iter_mut().zip([0, 3, 5, 6, 7, 8]) {
            *value = row.get_raw(column).as_i64()?;
        }
        for (value, column) in columns.texts.iter_mut().zip([1, 2, 4, 9]) {
            *value = row.get_raw(column).as_bytes()?;
        }
        Ok(columns)
    }

    fn issued_at_size(&self) -> usize {
        integer_size(self.integers[4]) + integer_size(self.integers[5])
    }

    fn size(&self) -> usize {
        let integers = self.integers[..4].iter().map(|&value| integer_size(value)).sum::<usize>();
        let texts = self.texts.iter().map(|value| text_size(value)).sum::<usize>();
        // The length of a Timestamp is one byte.
        integers + texts + 2 + self.issued_at_size()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let [sequence, total, status, paid, seconds, nanos] = self.integers;
        let [invoice_id, customer_id, currency, memo] = self.texts;
        integer(1, sequence, out);
        text(2, invoice_id, out);
        text(3, customer_id, out);
        integer(4, total, out);
        text(5, currency, out);
        integer(6, status, out);
        integer(7, paid, out);
        // A message that is set is written even where it is empty.
        out.extend_from_slice(&[8 << 3 | 2, self.issued_at_size() as u8]);
        integer(1, seconds, out);
        integer(2, nanos, out);
        text(9, memo, out);
    }
}

/// Appends one row as an `Invoice`.
fn invoice(row: &Context<'_>, out: &mut Vec<u8>) -> rusqlite::Result<i64> {
    let columns = Columns::of(row)?;
    columns.write(out);
    Ok(columns.integers[0])
}

/// Appends one row as an entry of a repeated field of invoices, as in `InvoiceBatch`.
fn entry(row: &Context<'_>, out: &mut Vec<u8>) -> rusqlite::Result<i64> {
    let columns = Columns::of(row)?;
    let size = columns.size();
    out.reserve(size + 11);
    out.push(1 << 3 | 2);
    encode_varint(size as u64, out);
    columns.write(out);
    Ok(columns.integers[0])
}

/// Appends a field of bytes; like all of proto3, nothing where it is empty.
pub fn text(field: u8, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.push(field << 3 | 2);
        encode_varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}

fn text_size(value: &[u8]) -> usize {
    match value.len() {
        0 => 0,
        length => 1 + encoded_len_varint(length as u64) + length,
    }
}

fn integer(field: u8, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(field << 3);
        encode_varint(value as u64, out);
    }
}

fn integer_size(value: i64) -> usize {
    match value {
        0 => 0,
        value => 1 + encoded_len_varint(value as u64),
    }
}
