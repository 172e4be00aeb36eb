//! The invoices of a batch, read where they are.

use protobuf::well_known_types::timestamp::Timestamp as TimestampMessage;
use protobuf::{EnumOrUnknown, MessageField};

use crate::model::Timestamp;
use crate::proto::report::{Invoice, InvoiceStatus};

/// Some invoices in the order of `sequence`, as they are on the wire: reading them copies no text.
///
/// ```
/// use billstream::client::Invoices;
/// use billstream::proto::report::{Invoice, InvoiceBatch};
/// use protobuf::Message;
///
/// let invoice = Invoice { sequence: 7, invoice_id: "inv-7".to_owned(), ..Default::default() };
/// let batch = InvoiceBatch { invoices: vec![invoice], ..Default::default() };
/// let invoices = Invoices::from_batch(batch.write_to_bytes()?)?;
/// for invoice in invoices.iter() {
///     println!("{} {}", invoice.sequence, invoice.invoice_id);
/// }
/// assert_eq!(invoices.last_sequence(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Invoices {
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

/// An invoice of [`Invoices`]; the fields are those of the message `Invoice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvoiceRef<'a> {
    /// The cursor to go on from.
    pub sequence: i64,
    /// Unique.
    pub invoice_id: &'a str,
    /// Whose it is.
    pub customer_id: &'a str,
    /// In minor units of `currency`.
    pub total_amount_cents: i64,
    /// ISO 4217.
    pub currency: &'a str,
    /// The number of an `InvoiceStatus`.
    pub status: i32,
    /// In minor units of `currency`.
    pub paid_cents: i64,
    /// UTC; 1970 where the message has none.
    pub issued_at: Timestamp,
    /// Empty where there is none.
    pub memo: &'a str,
}

impl InvoiceRef<'_> {
    /// The generated message with the same fields.
    pub fn to_message(&self) -> Invoice {
        let Timestamp { seconds, nanos } = self.issued_at;
        let issued_at = TimestampMessage { seconds, nanos, ..Default::default() };
        Invoice {
            sequence: self.sequence,
            invoice_id: self.invoice_id.to_owned(),
            customer_id: self.customer_id.to_owned(),
            total_amount_cents: self.total_amount_cents,
            currency: self.currency.to_owned(),
            status: self.status(),
            paid_cents: self.paid_cents,
            issued_at: MessageField::some(issued_at),
            memo: self.memo.to_owned(),
            ..Default::default()
        }
    }

    /// The status as the generated code has it.
    pub fn status(&self) -> EnumOrUnknown<InvoiceStatus> {
        EnumOrUnknown::from_i32(self.status)
    }
}

impl<'a> From<&'a Invoice> for InvoiceRef<'a> {
    fn from(invoice: &'a Invoice) -> InvoiceRef<'a> {
        let issued_at = invoice.issued_at.as_ref();
        InvoiceRef {
            sequence: invoice.sequence,
            invoice_id: &invoice.invoice_id,
            customer_id: &invoice.customer_id,
            total_amount_cents: invoice.total_amount_cents,
            currency: &invoice.currency,
            status: invoice.status.value(),
            paid_cents: invoice.paid_cents,
            issued_at: issued_at.map_or(Timestamp { seconds: 0, nanos: 0 }, |time| Timestamp {
                seconds: time.seconds,
                nanos: time.nanos,
            }),
            memo: &invoice.memo,
        }
    }
}

/// What is wrong with the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a valid InvoiceBatch: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl Invoices {
    /// Those of an encoded `InvoiceBatch`.
    pub fn from_batch(bytes: Vec<u8>) -> Result<Invoices, Malformed> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(Malformed("it has more than 4 GiB"));
        }
        let mut rows = Vec::new();
        let mut batch = Fields::of(&bytes, (0, bytes.len() as u32));
        while let Some(field) = batch.next()? {
            if let (1, Value::Bytes(span)) = field {
                rows.push(Row::read(&bytes, span)?);
            }
        }
        Ok(Invoices { bytes, rows })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The `sequence` of the last one; 0 where there is none.
    pub fn last_sequence(&self) -> i64 {
        self.rows.last().map_or(0, |row| row.sequence)
    }

    /// Leaves out of `iter` those after the sequence `until`.
    pub(super) fn cut(&mut self, until: i64) {
        self.rows.truncate(self.rows.partition_point(|row| row.sequence <= until));
    }

    /// The bytes of the `InvoiceBatch`.
    pub fn batch(&self) -> &[u8] {
        &self.bytes
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = InvoiceRef<'_>> {
        self.rows.iter().map(|row| InvoiceRef {
            sequence: row.sequence,
            invoice_id: self.text(row.invoice_id),
            customer_id: self.text(row.customer_id),
            total_amount_cents: row.total_amount_cents,
            currency: self.text(row.currency),
            status: row.status,
            paid_cents: row.paid_cents,
            issued_at: row.issued_at,
            memo: self.text(row.memo),
        })
    }

    fn text(&self, span: Span) -> &str {
        // Never another text: it was looked at when the row was read.
        std::str::from_utf8(slice(&self.bytes, span)).unwrap_or_default()
    }
}

/// From and until, in the bytes of the batch.
type Span = (u32, u32);

fn slice(bytes: &[u8], (from, until): Span) -> &[u8] {
    &bytes[from as usize..until as usize]
}

/// The numbers of an invoice, and where its texts are.
#[derive(Clone, Copy, Debug)]
struct Row {
    sequence: i64,
    total_amount_cents: i64,
    paid_cents: i64,
    issued_at: Timestamp,
    status: i32,
    invoice_id: Span,
    customer_id: Span,
    currency: Span,
    memo: Span,
}

impl Row {
    /// As every reader of protobuf does: of a field that comes twice the last one counts, and one that it does
    /// not know, or of another type, is passed over.
    fn read(bytes: &[u8], span: Span) -> Result<Row, Malformed> {
        let mut row = Row {
            sequence: 0,
            total_amount_cents: 0,
            paid_cents: 0,
            issued_at: Timestamp { seconds: 0, nanos: 0 },
            status: 0,
            invoice_id: (0, 0),
            customer_id: (0, 0),
            currency: (0, 0),
            memo: (0, 0),
        };
        let mut fields = Fields::of(bytes, span);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Varint(value)) => row.sequence = value as i64,
                (2, Value::Bytes(span)) => row.invoice_id = text(bytes, span)?,
                (3, Value::Bytes(span)) => row.customer_id = text(bytes, span)?,
                (4, Value::Varint(value)) => row.total_amount_cents = value as i64,
                (5, Value::Bytes(span)) => row.currency = text(bytes, span)?,
                (6, Value::Varint(value)) => row.status = value as i32,
                (7, Value::Varint(value)) => row.paid_cents = value as i64,
                (8, Value::Bytes(span)) => read_time(bytes, span, &mut row.issued_at)?,
                (9, Value::Bytes(span)) => row.memo = text(bytes, span)?,
                _ => {}
            }
        }
        Ok(row)
    }
}

fn read_time(bytes: &[u8], span: Span, time: &mut Timestamp) -> Result<(), Malformed> {
    let mut fields = Fields::of(bytes, span);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(value)) => time.seconds = value as i64,
            (2, Value::Varint(value)) => time.nanos = value as i32,
            _ => {}
        }
    }
    Ok(())
}

fn text(bytes: &[u8], span: Span) -> Result<Span, Malformed> {
    let is_text = std::str::from_utf8(slice(bytes, span)).is_ok();
    is_text.then_some(span).ok_or(Malformed("a text is not UTF-8"))
}

/// The fields of a message, one after another (<https://protobuf.dev/programming-guides/encoding/>).
struct Fields<'a> {
    bytes: &'a [u8],
    at: u32,
    until: u32,
}

enum Value {
    Varint(u64),
    Bytes(Span),
    /// A fixed number, which no field of ours is.
    Fixed,
}

const TRUNCATED: Malformed = Malformed("it ends within a field");

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8], (at, until): Span) -> Fields<'a> {
        Fields { bytes, at, until }
    }

    /// The number and the value of the next field.
    fn next(&mut self) -> Result<Option<(u64, Value)>, Malformed> {
        if self.at == self.until {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let bytes = u32::try_from(self.varint()?).map_err(|_| TRUNCATED)?;
                Value::Bytes(self.skip(bytes)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed("a field has a type that proto3 does not know")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn skip(&mut self, bytes: u32) -> Result<Span, Malformed> {
        let from = self.at;
        let until =
            from.checked_add(bytes).filter(|until| *until <= self.until).ok_or(TRUNCATED)?;
        self.at = until;
        Ok((from, until))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (from, _) = self.skip(1)?;
            let byte = self.bytes[from as usize];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number has more than 10 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::report::InvoiceBatch;
    use proptest::prelude::*;
    use protobuf::Message;

    fn invoice() -> impl Strategy<Value = Invoice> {
        let text = "\\PC{0,40}";
        let numbers = (any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>());
        let texts = (text, text, text, text);
        (numbers, texts, any::<i32>(), any::<i32>()).prop_map(|(numbers, texts, status, nanos)| {
            let (sequence, total_amount_cents, paid_cents, seconds) = numbers;
            let (invoice_id, customer_id, currency, memo) =
                (&texts.0[..], &texts.1[..], &texts.2[..], &texts.3[..]);
            let issued_at = Timestamp { seconds, nanos };
            #[rustfmt::skip]
            let invoice = InvoiceRef {
                sequence, invoice_id, customer_id, total_amount_cents, currency, status, paid_cents, issued_at,
                memo,
            };
            invoice.to_message()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_is_what_the_generated_code_reads(
            invoices in prop::collection::vec(invoice(), 0..20),
            unknown in prop::collection::vec((10..2000u32, any::<u64>()), 0..3),
        ) {
            let mut batch = InvoiceBatch { invoices, ..Default::default() };
            for (i, (field, value)) in unknown.into_iter().enumerate() {
                let Some(invoice) = batch.invoices.get_mut(i) else { break };
                let fields = invoice.special_fields.mut_unknown_fields();
                fields.add_varint(field, value);
                fields.add_fixed32(field, 7);
                fields.add_fixed64(field, value);
                fields.add_length_delimited(field, b"\xff\x00".to_vec());
            }
            let read = Invoices::from_batch(batch.write_to_bytes().unwrap()).unwrap();
            for invoice in &mut batch.invoices {
                invoice.special_fields = Default::default();
            }
            for (read, invoice) in read.iter().zip(&batch.invoices) {
                prop_assert_eq!(read, InvoiceRef::from(invoice));
            }
            let all: Vec<_> = read.iter().map(|invoice| invoice.to_message()).collect();
            prop_assert_eq!(all, batch.invoices);
        }

        /// Fields that come twice, of other types, cut short: what the generated code takes is taken, and as it
        /// takes it; and nothing else is.
        #[test]
        fn any_bytes_are_read_as_the_generated_code_does_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            fields in prop::collection::vec((0..100u8, prop::collection::vec(any::<u8>(), 0..9)), 0..20),
        ) {
            let fields = fields.iter().flat_map(|(tag, value)| {
                [&[*tag, value.len() as u8][..], &value[..]].concat()
            });
            let inner: Vec<u8> = fields.collect();
            let wrapped = [&[10, inner.len() as u8 | 0x80, (inner.len() >> 7) as u8][..], &inner[..]];
            for bytes in [bytes, wrapped.concat()] {
                let Ok(read) = Invoices::from_batch(bytes.clone()) else { continue };
                let Ok(batch) = InvoiceBatch::parse_from_bytes(&bytes) else {
                    // It looks into what this does not know: numbers of fields that are 0 or too large.
                    continue;
                };
                prop_assert_eq!(read.len(), batch.invoices.len());
                for (read, invoice) in read.iter().zip(batch.invoices) {
                    prop_assert_eq!(read.sequence, invoice.sequence);
                    prop_assert_eq!(read.invoice_id, invoice.invoice_id);
                    prop_assert_eq!(read.memo, invoice.memo);
                    prop_assert_eq!(read.status, invoice.status.value());
                    prop_assert_eq!(read.issued_at.seconds, invoice.issued_at.seconds);
                    prop_assert_eq!(read.issued_at.nanos, invoice.issued_at.nanos);
                }
            }
        }
    }

    #[test]
    fn a_batch_cut_short_is_refused() {
        let invoice = Invoice { sequence: 7, memo: "memo".to_owned(), ..Default::default() };
        let batch = InvoiceBatch { invoices: vec![invoice], ..Default::default() };
        let bytes = batch.write_to_bytes().unwrap();
        for end in 1..bytes.len() {
            assert!(Invoices::from_batch(bytes[..end].to_vec()).is_err(), "{end}");
        }
        let mut not_text = bytes.clone();
        *not_text.last_mut().unwrap() = 0xff;
        assert_eq!(Invoices::from_batch(not_text).unwrap_err(), Malformed("a text is not UTF-8"));
        assert!(Invoices::from_batch(bytes).is_ok());
    }
}
