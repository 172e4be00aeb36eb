//! From the columns of a row to the bytes of an `Invoice` or `Event` message, with nothing in between, not even
//! protobuf's `CodedOutputStream`: its buffer costs a batch export 3 % of its rows a second.

use crate::model::Kind;
use protobuf::rt::{bytes_size, compute_raw_varint64_size, tag_size};

/// Field 1, length-delimited: how `InvoiceBatch`, `ListInvoicesResponse` and `GetInvoiceResponse` hold an invoice,
/// and `EventBatch` an event.
const ROWS: u8 = 1 << 3 | 2;

/// Some rows, encoded. The bytes are those of an `InvoiceBatch` or `EventBatch`.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    /// Where each row is in `bytes`, without the tag and length before it; and its sequence.
    rows: Vec<(u32, u32, i64)>,
}

impl Chunk {
    /// The rows of an encoded batch: where each is in `bytes`, and its sequence.
    pub fn of(bytes: Vec<u8>, rows: Vec<(u32, u32, i64)>) -> Chunk {
        Chunk { bytes, rows }
    }

    /// Makes room for `bytes` bytes in all.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes.saturating_sub(self.bytes.len()));
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The bytes of a batch with all rows.
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

    /// The bytes of the message of row `i`.
    pub fn row(&self, i: usize) -> &[u8] {
        let (start, end, _) = self.rows[i];
        &self.bytes[start as usize..end as usize]
    }

    /// The sequence of row `i`.
    pub fn sequence(&self, i: usize) -> i64 {
        self.rows[i].2
    }

    /// The sequence of the last row; 0 when there is none.
    pub fn last_sequence(&self) -> i64 {
        self.rows.last().map_or(0, |(_, _, sequence)| *sequence)
    }

    /// Takes the last row off.
    pub fn pop(&mut self) {
        self.rows.pop();
        self.bytes.truncate(self.rows.last().map_or(0, |(_, end, _)| *end as usize));
    }

    /// Appends a row.
    pub fn push(&mut self, columns: &impl Row) {
        let size = columns.size();
        // The tag and the length before it have at most 11 bytes.
        self.bytes.reserve(size as usize + 11);
        self.bytes.push(ROWS);
        put_varint(&mut self.bytes, size);
        columns.write(&mut self.bytes);
        let end = self.bytes.len() as u32;
        self.rows.push((end - size as u32, end, columns.sequence()));
    }
}

/// The columns of one row, which make a message.
pub trait Row {
    fn sequence(&self) -> i64;

    /// The size of the message in bytes.
    fn size(&self) -> u64;

    fn write(&self, out: &mut Vec<u8>);
}

/// The columns of one invoice, borrowed from the database; texts are UTF-8. Fields of a message that have their
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

impl Row for Columns<'_> {
    fn sequence(&self) -> i64 {
        self.sequence
    }

    fn size(&self) -> u64 {
        varint_size(1, self.sequence)
            + text_size(2, self.invoice_id)
            + text_size(3, self.customer_id)
            + varint_size(4, self.total_amount_cents)
            + text_size(5, self.currency)
            + varint_size(6, self.status)
            + varint_size(7, self.paid_cents)
            + time_size(8, self.issued_at, self.issued_at_nanos)
            + text_size(9, self.memo)
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_integer(out, 1, self.sequence);
        put_text(out, 2, self.invoice_id);
        put_text(out, 3, self.customer_id);
        put_integer(out, 4, self.total_amount_cents);
        put_text(out, 5, self.currency);
        put_integer(out, 6, self.status);
        put_integer(out, 7, self.paid_cents);
        put_time(out, 8, self.issued_at, self.issued_at_nanos);
        put_text(out, 9, self.memo);
    }
}

/// The columns of one event of the ledger, in the same way.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventColumns<'a> {
    pub event_sequence: i64,
    pub event_id: &'a [u8],
    pub invoice_id: &'a [u8],
    pub kind: i64,
    pub amount_cents: i64,
    pub currency: &'a [u8],
    pub received_at: i64,
    pub received_at_nanos: i64,
    pub reference: &'a [u8],
    pub outcome: i64,
    pub invoice_status: i64,
    pub outstanding_cents: i64,
}

impl EventColumns<'_> {
    /// It follows from the kind, so that no column has it.
    fn paid_change_cents(&self) -> i64 {
        match self.kind {
            kind if kind == Kind::Payment as i64 => self.amount_cents,
            kind if kind == Kind::Refund as i64 => self.amount_cents.wrapping_neg(),
            _ => 0,
        }
    }
}

impl Row for EventColumns<'_> {
    fn sequence(&self) -> i64 {
        self.event_sequence
    }

    fn size(&self) -> u64 {
        varint_size(1, self.event_sequence)
            + text_size(2, self.event_id)
            + text_size(3, self.invoice_id)
            + varint_size(4, self.kind)
            + varint_size(5, self.amount_cents)
            + text_size(6, self.currency)
            + time_size(7, self.received_at, self.received_at_nanos)
            + text_size(8, self.reference)
            + varint_size(9, self.paid_change_cents())
            + varint_size(10, self.outcome)
            + varint_size(11, self.invoice_status)
            + varint_size(12, self.outstanding_cents)
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_integer(out, 1, self.event_sequence);
        put_text(out, 2, self.event_id);
        put_text(out, 3, self.invoice_id);
        put_integer(out, 4, self.kind);
        put_integer(out, 5, self.amount_cents);
        put_text(out, 6, self.currency);
        put_time(out, 7, self.received_at, self.received_at_nanos);
        put_text(out, 8, self.reference);
        put_integer(out, 9, self.paid_change_cents());
        put_integer(out, 10, self.outcome);
        put_integer(out, 11, self.invoice_status);
        put_integer(out, 12, self.outstanding_cents);
    }
}

/// A Timestamp, which is there whatever the time is.
fn time_size(field: u32, seconds: i64, nanos: i64) -> u64 {
    // It is under 128 bytes: its length is one.
    tag_size(field) + 1 + varint_size(1, seconds) + varint_size(2, nanos)
}

fn put_time(out: &mut Vec<u8>, field: u8, seconds: i64, nanos: i64) {
    out.push(field << 3 | 2);
    put_varint(out, varint_size(1, seconds) + varint_size(2, nanos));
    put_integer(out, 1, seconds);
    put_integer(out, 2, nanos);
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
    use crate::proto::report::{
        Event, EventBatch, EventKind, Invoice, InvoiceBatch, InvoiceStatus,
    };
    use proptest::prelude::*;
    use protobuf::well_known_types::timestamp::Timestamp;
    use protobuf::{Enum, EnumOrUnknown, Message, MessageField};

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
                prop_assert_eq!(chunk.row(i), &invoice.write_to_bytes().unwrap()[..]);
            }
            let batch = InvoiceBatch { invoices, ..Default::default() };
            prop_assert_eq!(chunk.batch(), &batch.write_to_bytes().unwrap()[..]);
        }
    }

    prop_compose! {
        fn event()(
            event_sequence in edge(), event_id in ".{0,200}", invoice_id in ".{0,20}", kind in 0..4i32,
            amount_cents in edge(), currency in "[A-Z]{0,3}", seconds in edge(),
            nanos in prop_oneof![Just(0), 0..1_000_000_000i32], reference in "\\PC{0,300}",
            outcome in 0..12i32, invoice_status in 0..6i32, outstanding_cents in edge(),
        ) -> Event {
            let paid_change_cents = match EventKind::from_i32(kind) {
                Some(EventKind::EVENT_KIND_PAYMENT) => amount_cents,
                Some(EventKind::EVENT_KIND_REFUND) => amount_cents.wrapping_neg(),
                _ => 0,
            };
            Event {
                event_sequence, event_id, invoice_id, amount_cents, currency, reference, paid_change_cents,
                outstanding_cents,
                kind: EnumOrUnknown::from_i32(kind),
                outcome: EnumOrUnknown::from_i32(outcome),
                invoice_status: EnumOrUnknown::from_i32(invoice_status),
                received_at: MessageField::some(Timestamp { seconds, nanos, ..Default::default() }),
                ..Default::default()
            }
        }
    }

    fn event_columns(event: &Event) -> EventColumns<'_> {
        EventColumns {
            event_sequence: event.event_sequence,
            event_id: event.event_id.as_bytes(),
            invoice_id: event.invoice_id.as_bytes(),
            kind: event.kind.value().into(),
            amount_cents: event.amount_cents,
            currency: event.currency.as_bytes(),
            received_at: event.received_at.seconds,
            received_at_nanos: event.received_at.nanos.into(),
            reference: event.reference.as_bytes(),
            outcome: event.outcome.value().into(),
            invoice_status: event.invoice_status.value().into(),
            outstanding_cents: event.outstanding_cents,
        }
    }

    proptest! {
        #[test]
        fn the_bytes_of_events_are_those_of_the_generated_code(events in prop::collection::vec(event(), 0..5)) {
            let mut chunk = Chunk::default();
            events.iter().for_each(|event| chunk.push(&event_columns(event)));
            for (i, event) in events.iter().enumerate() {
                prop_assert_eq!(chunk.row(i), &event.write_to_bytes().unwrap()[..]);
                prop_assert_eq!(chunk.sequence(i), event.event_sequence);
            }
            let batch = EventBatch { events, ..Default::default() };
            prop_assert_eq!(chunk.batch(), &batch.write_to_bytes().unwrap()[..]);
        }
    }

    /// A field added to a message must be added to its encoder.
    #[test]
    fn the_encoders_know_every_field() {
        let fields = <Invoice as protobuf::MessageFull>::descriptor().fields().count();
        assert_eq!(fields, 9);
        let fields = <Event as protobuf::MessageFull>::descriptor().fields().count();
        assert_eq!(fields, 12);
        assert_eq!(InvoiceStatus::INVOICE_STATUS_VOID as i32, crate::model::Status::Void as i32);
    }
}
