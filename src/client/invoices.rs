//! The invoices of a batch, read where they are.

use protobuf::well_known_types::timestamp::Timestamp as TimestampMessage;
use protobuf::{EnumOrUnknown, MessageField};

use crate::model::Timestamp;
use crate::proto::report::{Invoice, InvoiceStatus};
use crate::store::encode::Chunk;

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
pub struct Invoices(Chunk);

/// An invoice of [`Invoices`]; the fields are those of the message `Invoice`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
            issued_at: issued_at.map_or_else(Timestamp::default, |time| Timestamp {
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
        let mut places = Vec::with_capacity(bytes.len() / USUAL_BYTES);
        let mut batch = Fields(&bytes);
        while let Some(field) = batch.next()? {
            if let (1, Value::Bytes(invoice)) = field {
                let end = (bytes.len() - batch.0.len()) as u32;
                let sequence = InvoiceRef::read(invoice)?.sequence;
                places.push((end - invoice.len() as u32, end, sequence));
            }
        }
        Ok(Invoices(Chunk::of(bytes, places)))
    }

    /// Those of a chunk of this process, which need not be looked at.
    pub(super) fn of(chunk: Chunk) -> Invoices {
        Invoices(chunk)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `sequence` of the last one; 0 where there is none.
    pub fn last_sequence(&self) -> i64 {
        self.0.last_sequence()
    }

    /// Takes those after the sequence `until` off.
    pub(super) fn cut(&mut self, until: i64) {
        while self.last_sequence() > until {
            self.0.pop();
        }
    }

    /// The bytes of the `InvoiceBatch`.
    pub fn batch(&self) -> &[u8] {
        self.0.batch()
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = InvoiceRef<'_>> {
        // Never the default: they were read before, or written here.
        (0..self.len()).map(|i| InvoiceRef::read(self.0.row(i)).unwrap_or_default())
    }
}

/// Of an invoice, with its tag and length: less than most have.
const USUAL_BYTES: usize = 64;

impl<'a> InvoiceRef<'a> {
    /// As every reader of protobuf does: of a field that comes twice the last one counts, and one that it does
    /// not know, or of another type, is passed over.
    fn read(bytes: &'a [u8]) -> Result<InvoiceRef<'a>, Malformed> {
        let mut invoice = InvoiceRef::default();
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Varint(value)) => invoice.sequence = value as i64,
                (2, Value::Bytes(bytes)) => invoice.invoice_id = text(bytes)?,
                (3, Value::Bytes(bytes)) => invoice.customer_id = text(bytes)?,
                (4, Value::Varint(value)) => invoice.total_amount_cents = value as i64,
                (5, Value::Bytes(bytes)) => invoice.currency = text(bytes)?,
                (6, Value::Varint(value)) => invoice.status = value as i32,
                (7, Value::Varint(value)) => invoice.paid_cents = value as i64,
                (8, Value::Bytes(bytes)) => read_time(bytes, &mut invoice.issued_at)?,
                (9, Value::Bytes(bytes)) => invoice.memo = text(bytes)?,
                _ => {}
            }
        }
        Ok(invoice)
    }
}

fn read_time(bytes: &[u8], time: &mut Timestamp) -> Result<(), Malformed> {
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(value)) => time.seconds = value as i64,
            (2, Value::Varint(value)) => time.nanos = value as i32,
            _ => {}
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
}

/// The fields of a message that are still to come (<https://protobuf.dev/programming-guides/encoding/>).
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed number, which no field of ours is.
    Fixed,
}

const TRUNCATED: Malformed = Malformed("it ends within a field");

impl<'a> Fields<'a> {
    /// The number and the value of the next field.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let bytes = self.varint()?;
                Value::Bytes(self.take(bytes)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed("a field has a type that proto3 does not know")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], Malformed> {
        let bytes = usize::try_from(bytes).map_err(|_| TRUNCATED)?;
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(TRUNCATED)?;
            self.0 = rest;
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
