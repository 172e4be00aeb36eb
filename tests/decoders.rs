//! Every decoder of requests on hostile bytes, without a server: none panics, keeps much, takes long, or
//! makes a status that is large. (`fuzz/` looks for bytes that these have not thought of.)

use std::time::Duration;

use billstream::error::Error;
use billstream::grpc::decoders::{self, Decoder};
use billstream::proto::report::{
    BulkCommit, CreateInvoiceRequest, ExportRequest, InvoiceStatus, ListInvoicesRequest,
    ReconcileEvent, SummaryRequest,
};
use proptest::prelude::*;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{EnumOrUnknown, Message, MessageField};

/// The largest message that any decoder takes, by default.
const MAX_BYTES: usize = 4 << 20;
/// Two ids, a currency and a memo.
const MAX_KEPT_BYTES: usize = 2 * 128 + 1024 + 128;

/// Decodes, and holds what comes of it to the promises.
fn decode(decoder: Decoder, bytes: &[u8]) -> Result<(), Error> {
    let kept = decoder(bytes);
    match &kept {
        Ok(bytes) => assert!(*bytes <= MAX_KEPT_BYTES, "{bytes} bytes are kept"),
        Err(error) => {
            let is_theirs = matches!(error, Error::Invalid(_) | Error::Exhausted { .. });
            assert!(is_theirs, "{error:?}");
            let status = decoders::status(error);
            assert!(status.message().len() <= 1 << 10 && status.details().len() <= 4 << 10);
        }
    }
    kept.map(|_| ())
}

fn time() -> impl Strategy<Value = MessageField<Timestamp>> {
    let time = (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Timestamp {
        seconds,
        nanos,
        ..Timestamp::default()
    });
    prop::option::of(time).prop_map(MessageField::from_option)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => ".{0,40}", 1 => ".{120,140}", 1 => Just("USD".to_owned()), 1 => "\\PC{1000,1100}"]
}

fn statuses() -> impl Strategy<Value = Vec<EnumOrUnknown<InvoiceStatus>>> {
    // A negative one in a packed field does not fit in what rust-protobuf reserves for it.
    prop::collection::vec((0..i32::MAX).prop_map(EnumOrUnknown::from_i32), 0..40)
}

prop_compose! {
    fn filter()(
        customer_id in text(), statuses in statuses(), issued_from in time(), issued_until in time(),
        page_size in any::<i32>(), page_token in text(), max_rows in any::<i64>(),
    ) -> Vec<Vec<u8>> {
        let summary = SummaryRequest {
            customer_id: customer_id.clone(),
            issued_from: issued_from.clone(),
            issued_until: issued_until.clone(),
            ..Default::default()
        };
        let list = ListInvoicesRequest {
            customer_id: customer_id.clone(),
            statuses: statuses.clone(),
            issued_from: issued_from.clone(),
            issued_until: issued_until.clone(),
            page_size,
            page_token,
            ..Default::default()
        };
        let export = ExportRequest {
            customer_id, statuses, issued_from, issued_until, max_rows, ..Default::default()
        };
        vec![
            summary.write_to_bytes().unwrap(),
            list.write_to_bytes().unwrap(),
            export.write_to_bytes().unwrap(),
        ]
    }
}

prop_compose! {
    fn row()(
        [a, b, c] in [text(), text(), text()], currency in text(), cents in any::<i64>(),
        at in time(), count in prop::option::of(any::<i64>()),
    ) -> Vec<Vec<u8>> {
        let commit = count.map(|count| BulkCommit { batch_id: a.clone(), count, ..Default::default() });
        let invoice = CreateInvoiceRequest {
            invoice_id: a.clone(),
            customer_id: b.clone(),
            total_amount_cents: cents,
            currency: currency.clone(),
            issued_at: at.clone(),
            memo: c.clone(),
            commit: MessageField::from_option(commit),
            ..Default::default()
        };
        let event = ReconcileEvent {
            event_id: a,
            invoice_id: b,
            amount_cents: cents,
            currency,
            received_at: at,
            reference: c,
            ..Default::default()
        };
        vec![invoice.write_to_bytes().unwrap(), event.write_to_bytes().unwrap()]
    }
}

/// Bytes that are no message, messages, and messages that were damaged on their way.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let messages = prop_oneof![filter(), row()];
    let message = (messages, any::<prop::sample::Index>())
        .prop_map(|(mut messages, which)| messages.swap_remove(which.index(messages.len())));
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
    let damaged =
        (message, prop::collection::vec(change, 0..4)).prop_map(|(mut bytes, changes)| {
            for (at, to, byte, how) in changes {
                if bytes.is_empty() {
                    break;
                }
                let (at, to) = (at.index(bytes.len()), to.index(bytes.len()));
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, byte),
                    _ => bytes.extend_from_within(at.min(to)..=at.max(to)),
                }
            }
            bytes
        });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..64), 4 => damaged]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_taken_or_refused(bytes in bytes()) {
        for (_, decoder) in decoders::ALL {
            let _ = decode(*decoder, &bytes);
        }
    }
}

/// The time that this thread has had a processor: other work of the host is not in it.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

/// Each decoder is to be done with each message in less than 20 ms. Five times that is allowed, for a build
/// without optimisation and a shared host.
fn assert_none_takes_long(messages: impl Iterator<Item = Vec<u8>>) {
    let mut slowest = (Duration::ZERO, String::new());
    for bytes in messages {
        for (name, decoder) in decoders::ALL {
            let start = processor_time();
            let _ = decode(*decoder, &bytes);
            let took = processor_time() - start;
            slowest =
                slowest.max((took, format!("{name}: {} x {:02x?}", bytes.len(), &bytes[..16])));
        }
    }
    println!("the slowest took {slowest:?}");
    assert!(slowest.0 < Duration::from_millis(100), "{slowest:?}");
}

/// The largest messages of streams and of others, made by `message` from the number of bytes.
fn largest(message: impl Fn(usize) -> Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    [MAX_BYTES, 64 << 10].map(message).into_iter()
}

/// As many as there can be of the cheapest fields that there are.
#[test]
fn no_number_of_fields_within_the_limits_takes_long() {
    let values = [&[0][..], &[1], &[0xff], &[2, b'a', b'a'], &[0xff, 0xff, 3]];
    let fields = (8..=u8::MAX).flat_map(|tag| values.map(|value| [&[tag], value].concat()));
    assert_none_takes_long(
        fields.flat_map(|field| largest(move |bytes| field.repeat(bytes / field.len()))),
    );
}

/// One field that is as long as can be, of contents that are checked by their bytes.
#[test]
fn no_field_within_the_limits_takes_long() {
    let contents = [b"a", "é".as_bytes(), &[0], &[1], &[0x0a, 0], &[0x78, 1], &[0xff]];
    let fields = (1..16).flat_map(|number| contents.map(|content| (number, content)));
    assert_none_takes_long(fields.flat_map(|(number, content)| {
        largest(move |bytes| {
            let content = content.repeat((bytes - 8) / content.len());
            [&delimited(number, content.len())[..], &content].concat()
        })
    }));
}

/// The tag and the length of a field of `bytes`.
fn delimited(number: u8, mut bytes: usize) -> Vec<u8> {
    let mut head = vec![number << 3 | 2];
    while bytes > 127 {
        head.push(bytes as u8 | 128);
        bytes >>= 7;
    }
    head.push(bytes as u8);
    head
}
