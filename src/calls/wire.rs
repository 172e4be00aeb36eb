//! A look at the bytes of a message before it is parsed, which allocates nothing.
//!
//! What it refuses is malformed, or is more than such a message can need. Parsing would keep it: each
//! unknown field in a map (4 MiB of them take over a second), each time of millions in one field.

use protobuf::Message;

use crate::proto::admin::BackupRequest;
use crate::proto::report::{
    CreateInvoiceBatch, CreateInvoiceRequest, ExportEventsRequest, ExportRequest,
    GetInvoiceRequest, ListInvoicesRequest, ReconcileEvent, ReconcileEventBatch, SummaryRequest,
};

/// A message that a client sends.
pub trait Incoming: Message {
    const SHAPE: &'static Shape;
    /// The setting that limits its size.
    const SIZE_LIMIT: &'static str;
}

/// A message of a stream of rows: a row, or a batch of them.
pub trait OfRows: Message {
    type Row: Incoming;
    /// Whether the rows are the messages in field 1.
    const IS_BATCH: bool;
    /// Whether field 2 says that the rows are a trial.
    const MAY_BE_TRIAL: bool = false;
}

impl OfRows for CreateInvoiceRequest {
    type Row = CreateInvoiceRequest;
    const IS_BATCH: bool = false;
}

impl OfRows for CreateInvoiceBatch {
    type Row = CreateInvoiceRequest;
    const IS_BATCH: bool = true;
}

impl OfRows for ReconcileEvent {
    type Row = ReconcileEvent;
    const IS_BATCH: bool = false;
}

impl OfRows for ReconcileEventBatch {
    type Row = ReconcileEvent;
    const IS_BATCH: bool = true;
    const MAY_BE_TRIAL: bool = true;
}

/// What a message may have.
pub struct Shape {
    /// The number and the kind of each field.
    fields: &'static [(u32, Kind)],
    /// The most fields, each counted as often as it comes; those of newer clients are among them. A message
    /// within the message has its own count, so the product of both bounds the whole.
    max_fields: usize,
}

enum Kind {
    Varint,
    Text,
    /// Repeated, packed or not.
    Varints,
    Message(&'static Shape),
}
use Kind::{Text, Varint, Varints};

const TIME: Kind = Kind::Message(&Shape { fields: &[(1, Varint), (2, Varint)], max_fields: 16 });

const COMMIT: Kind =
    Kind::Message(&Shape { fields: &[(1, Text), (2, Varint), (3, Varint)], max_fields: 16 });

/// One row has seven fields, and may have more one day.
const MAX_ROW_FIELDS: usize = 64;
/// A filter may name its statuses one by one. Its size is bounded more closely than this.
const MAX_FILTER_FIELDS: usize = 1024;

impl Incoming for SummaryRequest {
    const SHAPE: &'static Shape =
        &Shape { fields: &[(1, Text), (2, TIME), (3, TIME)], max_fields: MAX_FILTER_FIELDS };
    const SIZE_LIMIT: &'static str = "max_request_bytes";
}

impl Incoming for ListInvoicesRequest {
    const SHAPE: &'static Shape = &Shape {
        fields: &[(1, Text), (2, Varints), (3, TIME), (4, TIME), (5, Varint), (6, Text)],
        max_fields: MAX_FILTER_FIELDS,
    };
    const SIZE_LIMIT: &'static str = "max_request_bytes";
}

impl Incoming for ExportRequest {
    const SHAPE: &'static Shape = &Shape {
        fields: &[(1, Text), (2, Varints), (3, TIME), (4, TIME), (5, Varint), (6, Varint)],
        max_fields: MAX_FILTER_FIELDS,
    };
    const SIZE_LIMIT: &'static str = "max_request_bytes";
}

impl Incoming for GetInvoiceRequest {
    const SHAPE: &'static Shape =
        &Shape { fields: &[(1, Text), (2, Varint), (3, Varint)], max_fields: MAX_FILTER_FIELDS };
    const SIZE_LIMIT: &'static str = "max_request_bytes";
}

impl Incoming for ExportEventsRequest {
    const SHAPE: &'static Shape =
        &Shape { fields: &[(1, Varint), (2, Varint)], max_fields: MAX_FILTER_FIELDS };
    const SIZE_LIMIT: &'static str = "max_request_bytes";
}

impl Incoming for BackupRequest {
    const SHAPE: &'static Shape = &Shape { fields: &[], max_fields: MAX_FILTER_FIELDS };
    const SIZE_LIMIT: &'static str = "max_request_bytes";
}

impl Incoming for CreateInvoiceRequest {
    const SHAPE: &'static Shape = &Shape {
        fields: &[(1, Text), (2, Text), (3, Varint), (4, Text), (5, TIME), (6, Text), (7, COMMIT)],
        max_fields: MAX_ROW_FIELDS,
    };
    const SIZE_LIMIT: &'static str = "max_message_bytes";
}

impl Incoming for ReconcileEvent {
    const SHAPE: &'static Shape = &Shape {
        fields: &[(1, Text), (2, Text), (3, Varint), (4, Text), (5, TIME), (6, Text), (7, Varint)],
        max_fields: MAX_ROW_FIELDS,
    };
    const SIZE_LIMIT: &'static str = "max_message_bytes";
}

/// Refuses what has not the shape, and says why.
pub fn check(shape: &Shape, mut bytes: &[u8]) -> Result<(), String> {
    let mut fields = 0;
    while !bytes.is_empty() {
        fields += 1;
        if fields > shape.max_fields {
            return Err(format!("it has more than {} fields", shape.max_fields));
        }
        let (number, wire_type) = tag(&mut bytes)?;
        let value = value(&mut bytes, wire_type)?;
        shape.check_field(number, wire_type, value)?;
    }
    Ok(())
}

/// A batch whose rows are not parsed.
#[derive(Default)]
pub struct Rows<'a> {
    pub rows: Vec<&'a [u8]>,
    /// It says that nothing of it is to be booked.
    pub is_trial: bool,
}

/// The bytes of each row of a batch, `max_rows` and one at the most: the one more tells that it has too many.
/// Rows are parsed one by one: a whole batch of empty ones would be a hundred times its size.
pub fn rows<M: OfRows>(mut bytes: &[u8], max_rows: usize) -> Result<Rows<'_>, String> {
    let (mut batch, mut others) = (Rows::default(), 0);
    while !bytes.is_empty() && batch.rows.len() <= max_rows {
        match (tag(&mut bytes)?, &mut bytes) {
            ((1, BYTES), bytes) => batch.rows.push(value(bytes, BYTES)?),
            ((1, other), _) => return Err(format!("field 1 is not of wire type {other}")),
            ((2, other), _) if M::MAY_BE_TRIAL && other != VARINT => {
                return Err(format!("field 2 is not of wire type {other}"));
            }
            ((number, wire_type), bytes) => {
                match (number, M::MAY_BE_TRIAL) {
                    // Of several the last counts.
                    (2, true) => batch.is_trial = varint(bytes)? != 0,
                    _ => drop(value(bytes, wire_type)?),
                }
                others += 1;
                if others > MAX_ROW_FIELDS {
                    return Err(format!(
                        "it has more than {MAX_ROW_FIELDS} fields beside its rows"
                    ));
                }
            }
        }
    }
    Ok(batch)
}

impl Shape {
    fn check_field(&self, number: u32, wire_type: u32, value: &[u8]) -> Result<(), String> {
        let field = self.fields.iter().find(|(known, _)| *known == number);
        match (field.map(|(_, kind)| kind), wire_type) {
            (Some(Kind::Message(shape)), BYTES) => check(shape, value),
            (None, _) | (Some(Varint | Varints), VARINT) | (Some(Text | Varints), BYTES) => Ok(()),
            (Some(_), _) => Err(format!("field {number} is not of wire type {wire_type}")),
        }
    }
}

// The wire types that have no bit more: <https://protobuf.dev/programming-guides/encoding/#structure>.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// The number of a field and its wire type.
fn tag(bytes: &mut &[u8]) -> Result<(u32, u32), String> {
    let tag = u32::try_from(varint(bytes)?).unwrap_or_default();
    match tag >> 3 {
        0 => Err("a field has no number that can be".to_owned()),
        number => Ok((number, tag & 7)),
    }
}

/// The bytes of a field's value, which is at the front; of a varint none, since only its end matters.
fn value<'a>(bytes: &mut &'a [u8], wire_type: u32) -> Result<&'a [u8], String> {
    match wire_type {
        VARINT => varint(bytes).map(|_| &[][..]),
        FIXED64 => take(bytes, 8),
        BYTES => {
            let length = varint(bytes)?;
            take(bytes, length)
        }
        FIXED32 => take(bytes, 4),
        // Groups are 3 and 4: no message of ours has one, and they nest without end.
        other => Err(format!("a field is of wire type {other}")),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).ok();
    let (taken, rest) = length
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or_else(|| "it ends within a field".to_owned())?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err("it has a number without an end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protobuf::descriptor::field_descriptor_proto::{Label, Type};
    use protobuf::reflect::{MessageDescriptor, RuntimeFieldType, RuntimeType};
    use protobuf::MessageFull;

    fn assert_shape(shape: &Shape, descriptor: &MessageDescriptor) {
        let name = descriptor.full_name();
        let numbers: Vec<_> = descriptor.fields().map(|field| field.number() as u32).collect();
        let known: Vec<_> = shape.fields.iter().map(|(number, _)| *number).collect();
        assert_eq!(known, numbers, "{name}");
        for (field, (number, kind)) in descriptor.fields().zip(shape.fields) {
            let is_repeated = field.proto().label() == Label::LABEL_REPEATED;
            let fits = match (field.proto().type_(), kind) {
                (Type::TYPE_STRING, Text) => !is_repeated,
                (Type::TYPE_INT32 | Type::TYPE_INT64 | Type::TYPE_BOOL, Varint) => !is_repeated,
                (Type::TYPE_ENUM, Varint) => !is_repeated,
                (Type::TYPE_ENUM, Varints) => is_repeated,
                (Type::TYPE_MESSAGE, Kind::Message(shape)) => {
                    let RuntimeFieldType::Singular(RuntimeType::Message(inner)) =
                        field.runtime_field_type()
                    else {
                        panic!("{name}.{number} is repeated")
                    };
                    assert_shape(shape, &inner);
                    true
                }
                _ => false,
            };
            assert!(fits, "{name}.{number}");
        }
    }

    #[test]
    fn the_shapes_are_those_of_the_proto_file() {
        assert_shape(SummaryRequest::SHAPE, &SummaryRequest::descriptor());
        assert_shape(ListInvoicesRequest::SHAPE, &ListInvoicesRequest::descriptor());
        assert_shape(ExportRequest::SHAPE, &ExportRequest::descriptor());
        assert_shape(GetInvoiceRequest::SHAPE, &GetInvoiceRequest::descriptor());
        assert_shape(ExportEventsRequest::SHAPE, &ExportEventsRequest::descriptor());
        assert_shape(CreateInvoiceRequest::SHAPE, &CreateInvoiceRequest::descriptor());
        assert_shape(ReconcileEvent::SHAPE, &ReconcileEvent::descriptor());
    }

    #[test]
    fn what_is_malformed_is_told() {
        let cases: &[(&[u8], &str)] = &[
            (&[0x0a, 2, b'a'], "within a field"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "within a field"),
            (&[0x18, 0x80], "a number without an end"),
            (&[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], "an end"),
            (&[0x02, 0], "no number that can be"),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 1, 0], "no number that can be"),
            (&[0x13, 0x14], "of wire type 3"),
            (&[0x16], "of wire type 6"),
            (&[0x08, 0], "field 1 is not of wire type 0"),
            (&[0x1a, 0], "field 3 is not of wire type 2"),
            (&[0x2a, 3, 0x0a, 1, b'a'], "field 1 is not of wire type 2"),
            (&[0x2a, 2, 0x08, 0x80], "a number without an end"),
        ];
        for (bytes, expected) in cases {
            let why = check(CreateInvoiceRequest::SHAPE, bytes).unwrap_err();
            assert!(why.contains(expected), "{bytes:?}: {why}");
        }
    }

    #[test]
    fn fields_are_counted_in_each_message() {
        let unknown = |fields: usize| [0x78, 1].repeat(fields);
        let time_of = |fields: usize| [&[0x2a, 2 * fields as u8], &unknown(fields)[..]].concat();
        let check = |bytes: &[u8]| check(CreateInvoiceRequest::SHAPE, bytes);
        assert_eq!(check(&[unknown(63), time_of(16)].concat()), Ok(()));
        assert!(check(&unknown(65)).unwrap_err().contains("more than 64 fields"));
        assert!(check(&time_of(17)).unwrap_err().contains("more than 16 fields"));
        assert!(check(&time_of(1).repeat(65)).unwrap_err().contains("more than 64 fields"));
    }

    proptest! {
        /// Apart from what is refused here on purpose, both readers agree on where a message is sound.
        #[test]
        fn what_was_parsed_and_written_has_the_shape(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(event) = ReconcileEvent::parse_from_bytes(&bytes) {
                let written = event.write_to_bytes().unwrap();
                // A known field of another wire type is unknown to the parser.
                prop_assume!(event.special_fields.unknown_fields().iter().all(|(n, _)| n > 7));
                prop_assume!(event.received_at.special_fields.unknown_fields().iter().all(|(n, _)| n > 2));
                prop_assert_eq!(check(ReconcileEvent::SHAPE, &written), Ok(()));
            }
        }
    }
}
