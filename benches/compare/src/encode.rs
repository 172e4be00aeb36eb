//! From column references to protobuf bytes: no `Invoice` and no `String` in between.

use prost::encoding::{encode_varint, encoded_len_varint};
use rusqlite::Row;

/// The columns of one row of [`crate::store::COLUMNS`], borrowed from SQLite.
struct Columns<'a> {
    /// sequence, total, status, paid, and the two parts of issued_at.
    integers: [i64; 6],
    /// invoice id, customer id, currency and memo.
    texts: [&'a [u8]; 4],
}

impl<'a> Columns<'a> {
    fn of(row: &'a Row<'_>) -> rusqlite::Result<Columns<'a>> {
        let mut columns = Columns { integers: [0; 6], texts: [&[]; 4] };
        for (value, column) in columns.integers.iter_mut().zip([0, 3, 5, 6, 7, 8]) {
            *value = row.get_ref(column)?.as_i64()?;
        }
        for (value, column) in columns.texts.iter_mut().zip([1, 2, 4, 9]) {
            *value = row.get_ref(column)?.as_bytes()?;
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
pub fn invoice(row: &Row<'_>, out: &mut Vec<u8>) -> rusqlite::Result<()> {
    Columns::of(row)?.write(out);
    Ok(())
}

/// Appends one row as an entry of a repeated field of invoices, as in `InvoiceBatch`.
pub fn entry(row: &Row<'_>, out: &mut Vec<u8>) -> rusqlite::Result<()> {
    let columns = Columns::of(row)?;
    let size = columns.size();
    out.reserve(size + 11);
    out.push(1 << 3 | 2);
    encode_varint(size as u64, out);
    columns.write(out);
    Ok(())
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
