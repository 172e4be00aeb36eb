//! From the columns of a row to the bytes of an `Invoice` message, with nothing in between, not even
//! protobuf's `CodedOutputStream`: its buffer costs a batch export 3 % of its rows a second.

use protobuf::rt::{bytes_size, compute_raw_varint64_size, tag_size};

/// Field 1, length-delimited: how `InvoiceBatch` and `ListInvoicesResponse` hold an invoice.
const INVOICES: u8 = 1 << 3 | 2;

/// Some rows, encoded. The bytes are those of an `InvoiceBatch`.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    /// Where each invoice is in `bytes`, without the tag and length before it; and its sequence.
    invoices: Vec<(u32, u32, i64)>,
}

impl Chunk {
    /// The rows of an encoded `InvoiceBatch`: where each `Invoice` is in `bytes`, and its `sequence`.
    pub fn of(bytes: Vec<u8>, invoices: Vec<(u32, u32, i64)>) -> Chunk {
        Chunk { bytes, invoices }
    }

    /// Makes room for `bytes` bytes in all.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes.saturating_sub(self.bytes.len()));
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.invoices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.invoices.is_empty()
    }

    /// The bytes of an `InvoiceBatch` with all rows.
    pub fn batch(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of [`Chunk::batch`], taken out: after it the chunk has no more bytes.
    pub fn take_batch(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        // Memory that is filled can be handed to gRPC as it is.
        bytes.shrink_to_fit();
        bytes
    }

    /// The bytes of the `Invoice` of row `i`.
    pub fn invoice(&self, i: usize) -> &[u8] {
        let (start, end, _) = self.invoices[i];
        &self.bytes[start as usize..end as usize]
    }

    /// The `sequence` of row `i`.
    pub fn sequence(&self, i: usize) -> i64 {
        self.invoices[i].2
    }

    /// The `sequence` of the last row; 0 when there is none.
    pub fn last_sequence(&self) -> i64 {
        self.invoices.last().map_or(0, |(_, _, sequence)| *sequence)
    }

    /// Takes the last row off.
    pub fn pop(&mut self) {
        self.invoices.pop();
        self.bytes.truncate(self.invoices.last().map_or(0, |(_, end, _)| *end as usize));
    }

    /// Appends a row.
    pub fn push(&mut self, columns: &Columns<'_>) {
        let size = columns.size();
        columns.write(size, &mut self.bytes);
        let end = self.bytes.len() as u32;
        self.invoices.push((end - size as u32, end, columns.sequence));
    }
}

/// The columns of one row, borrowed from the database; texts are UTF-8. Fields of a message that have their
/// default value are not on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'a> {
    pub sequence: i64,
    pub invoice_id: &'a [u8],
    pub customer_id: &'a [u8],
    pub total_amount_cents: i64,
    pub currency: &'a [u8],
    pub status: i64,
    pub paid_cents: i64,
    pub issued_at: i64,
    pub issued_at_nanos: i64,
    pub memo: &'a [u8],
}

impl Columns<'_> {
    fn issued_at_size(&self) -> u64 {
        varint_size(1, self.issued_at) + varint_size(2, self.issued_at_nanos)
    }

    /// The size of the `Invoice` in bytes.
    fn size(&self) -> u64 {
        varint_size(1, self.sequence)
            + text_size(2, self.invoice_id)
            + text_size(3, self.customer_id)
            + varint_size(4, self.total_amount_cents)
            + text_size(5, self.currency)
            + varint_size(6, self.status)
            + varint_size(7, self.paid_cents)
            // A Timestamp is under 128 bytes: its length is one.
            + tag_size(8)
            + 1
            + self.issued_at_size()
            + text_size(9, self.memo)
    }

    fn write(&self, size: u64, out: &mut Vec<u8>) {
        // The tag and the length before it have at most 11 bytes.
        out.reserve(size as usize + 11);
        out.push(INVOICES);
        put_varint(out, size);
        put_integer(out, 1, self.sequence);
        put_text(out, 2, self.invoice_id);
        put_text(out, 3, self.customer_id);
        put_integer(out, 4, self.total_amount_cents);
        put_text(out, 5, self.currency);
        put_integer(out, 6, self.status);
        put_integer(out, 7, self.paid_cents);
        out.push(8 << 3 | 2);
        put_varint(out, self.issued_at_size());
        put_integer(out, 1, self.issued_at);
        put_integer(out, 2, self.issued_at_nanos);
        put_text(out, 9, self.memo);
    }
}

fn varint_size(field: u32, value: i64) -> u64 {
    if value == 0 {
        0
    } else {
        tag_size(field) + compute_raw_varint64_size(value as u64)
    }
}

fn text_size(field: u32, value: &[u8]) -> u64 {
    if value.is_empty() {
        0
    } else {
        bytes_size(field, value)
    }
}

fn put_integer(out: &mut Vec<u8>, field: u8, value: i64) {
    if value != 0 {
        out.push(field << 3);
        put_varint(out, value as u64);
    }
}

fn put_text(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        out.push(field << 3 | 2);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::report::{Invoice, InvoiceBatch, InvoiceStatus};
    use proptest::prelude::*;
    use protobuf::well_known_types::timestamp::Timestamp;
    use protobuf::{EnumOrUnknown, Message, MessageField};

    fn edge() -> impl Strategy<Value = i64> {
        prop_oneof![
            Just(0),
            Just(1),
            Just(127),
            Just(128),
            Just(i64::MAX),
            Just(i64::MIN),
            Just(-1),
            any::<i64>()
        ]
    }

    prop_compose! {
        fn invoice()(
            sequence in edge(), invoice_id in ".{0,200}", customer_id in ".{0,20}",
            total_amount_cents in edge(), currency in "[A-Z]{0,3}", status in 0i32..6,
            paid_cents in edge(), seconds in edge(), nanos in prop_oneof![Just(0), 0..1_000_000_000i32],
            memo in "\\PC{0,300}",
        ) -> Invoice {
            Invoice {
                sequence, invoice_id, customer_id, total_amount_cents, currency, paid_cents, memo,
                status: EnumOrUnknown::from_i32(status),
                issued_at: MessageField::some(Timestamp { seconds, nanos, ..Default::default() }),
                ..Default::default()
            }
        }
    }

    fn columns(invoice: &Invoice) -> Columns<'_> {
        Columns {
            sequence: invoice.sequence,
            invoice_id: invoice.invoice_id.as_bytes(),
            customer_id: invoice.customer_id.as_bytes(),
            total_amount_cents: invoice.total_amount_cents,
            currency: invoice.currency.as_bytes(),
            status: invoice.status.value().into(),
            paid_cents: invoice.paid_cents,
            issued_at: invoice.issued_at.seconds,
            issued_at_nanos: invoice.issued_at.nanos.into(),
            memo: invoice.memo.as_bytes(),
        }
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_generated_code(invoices in prop::collection::vec(invoice(), 0..5)) {
            let mut chunk = Chunk::default();
            invoices.iter().for_each(|invoice| chunk.push(&columns(invoice)));
            prop_assert_eq!(chunk.len(), invoices.len());
            for (i, invoice) in invoices.iter().enumerate() {
                prop_assert_eq!(chunk.invoice(i), &invoice.write_to_bytes().unwrap()[..]);
            }
            let batch = InvoiceBatch { invoices, ..Default::default() };
            prop_assert_eq!(chunk.batch(), &batch.write_to_bytes().unwrap()[..]);
        }
    }

    /// A field added to the message must be added to the encoder.
    #[test]
    fn the_encoder_knows_every_field() {
        let fields = <Invoice as protobuf::MessageFull>::descriptor().fields().count();
        assert_eq!(fields, 9);
        assert_eq!(InvoiceStatus::INVOICE_STATUS_VOID as i32, crate::model::Status::Void as i32);
    }
}
