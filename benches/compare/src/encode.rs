//! From column references to protobuf bytes: no `Invoice` and no `String` in between.

use prost::encoding::{encode_varint, encoded_len_varint};
use rusqlite::Row;

/// Appends one row of [`crate::store::COLUMNS`] as an `Invoice`.
pub fn invoice(row: &Row<'_>, out: &mut Vec<u8>) -> rusqlite::Result<()> {
    integer(1, row.get_ref(0)?.as_i64()?, out);
    text(2, row.get_ref(1)?.as_bytes()?, out);
    text(3, row.get_ref(2)?.as_bytes()?, out);
    integer(4, row.get_ref(3)?.as_i64()?, out);
    text(5, row.get_ref(4)?.as_bytes()?, out);
    integer(6, row.get_ref(5)?.as_i64()?, out);
    integer(7, row.get_ref(6)?.as_i64()?, out);
    timestamp(8, row.get_ref(7)?.as_i64()?, row.get_ref(8)?.as_i64()?, out);
    text(9, row.get_ref(9)?.as_bytes()?, out);
    Ok(())
}

/// Appends one row as an entry of a repeated field of invoices, as in `InvoiceBatch`.
pub fn entry(row: &Row<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> rusqlite::Result<()> {
    scratch.clear();
    invoice(row, scratch)?;
    text(1, scratch, out);
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

fn integer(field: u8, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(field << 3);
        encode_varint(value as u64, out);
    }
}

/// A message that is set is written even where it is empty.
fn timestamp(field: u8, seconds: i64, nanos: i64, out: &mut Vec<u8>) {
    let length = |value: i64| if value == 0 { 0 } else { 1 + encoded_len_varint(value as u64) };
    out.push(field << 3 | 2);
    out.push((length(seconds) + length(nanos)) as u8);
    integer(1, seconds, out);
    integer(2, nanos, out);
}
