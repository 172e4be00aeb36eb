//! What a malformed request costs, and what a client is told of it: always its own fault, in few words.

use billstream::client::Stub;
use billstream::grpc::methods::{BULK_CREATE, EXPORT_INVOICES, GET_SUMMARY, RECONCILE};
use billstream::proto::error_details::bad_request::FieldViolation;
use billstream::proto::error_details::{BadRequest, Status};
use billstream::proto::report::{
    BulkResult, ExportRequest, ListInvoicesRequest, ReconcileAck, ReconcileEvent, ReconcileOutcome,
};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, ChannelBuilder, EnvBuilder, RpcStatus, RpcStatusCode, WriteFlags};
use protobuf::{EnumOrUnknown, Message};

use crate::common::*;

/// The largest message of a stream, by default.
const MAX_BYTES: usize = 4 << 20;

fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

/// The fields that a status names.
fn violations(status: &RpcStatus) -> Vec<FieldViolation> {
    let details = Status::parse_from_bytes(status.details()).unwrap();
    assert_eq!(details.message, status.message());
    let [detail] = &details.details[..] else { panic!("{details:?}") };
    detail.unpack::<BadRequest>().unwrap().unwrap().field_violations
}

#[test]
fn of_many_wrong_statuses_sixteen_are_told() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    for wrong in [1, 16, 17, 100, 5000] {
        let statuses = vec![EnumOrUnknown::from_i32(i32::MAX); wrong];
        let list = ListInvoicesRequest { statuses: statuses.clone(), ..Default::default() };
        let export = ExportRequest { statuses, ..Default::default() };
        let rows = client.export_invoices(&export, options()).unwrap();
        let refused = [
            status(client.list_invoices(&list, options())),
            status(Err::<(), _>(collect(rows).1.unwrap())),
        ];
        for status in refused {
            assert_eq!(status.code(), RpcStatusCode::INVALID_ARGUMENT, "{status:?}");
            let violations = violations(&status);
            assert_eq!(violations.len(), wrong.min(16));
            assert_eq!(violations[0].field, "statuses[0]");
            let says_how_many = status.message().starts_with(&format!("{wrong} violations"));
            assert_eq!(says_how_many, wrong > 16, "{status:?}");
        }
    }
}

#[test]
fn a_long_value_is_quoted_shortly() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    for (text, times) in [("A", 5000), ("\u{1}", 5000), ("\u{10ffff}", 1250), ("%\"", 1 << 20)] {
        let mut long = invoice("a", 1);
        long.currency = text.repeat(times);
        let status = assert_status(upload(&client, [long]), RpcStatusCode::INVALID_ARGUMENT, "");
        let [violation] = &violations(&status)[..] else { panic!("{status:?}") };
        assert_eq!(violation.field, "requests[0].currency");
        let bytes = format!("({} bytes) is not an ISO 4217 code", text.len() * times);
        assert!(violation.description.contains(&bytes), "{violation:?}");
        assert!(violation.description.len() < 1000, "{violation:?}");
    }
}

/// Sends the events, and gives their acknowledgements.
fn reconcile(client: &Stub, events: Vec<ReconcileEvent>) -> Vec<ReconcileAck> {
    let (mut sink, acks) = client.reconcile(options()).unwrap();
    block_on(async {
        for event in events {
            sink.send((event, WriteFlags::default())).await.unwrap();
        }
        half_close(&mut sink).await;
    });
    let (acks, error) = collect(acks);
    assert!(error.is_none(), "{error:?}");
    acks
}

#[test]
fn a_refused_event_is_answered_and_kept_in_few_bytes() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 10)]).unwrap();
    let large = || "\u{1}".repeat(MAX_BYTES - 200);
    let sound = |event_id| event(event_id, "a", 10);
    let events = vec![
        ReconcileEvent { currency: large(), ..sound("e1") },
        ReconcileEvent { reference: large(), ..sound("e2") },
        ReconcileEvent { invoice_id: large(), ..sound("e3") },
        ReconcileEvent { event_id: large(), ..sound("") },
        sound("e5"),
    ];
    let acks = reconcile(&client, events);
    // An id that is too long is answered with none.
    for (ack, event_id) in acks.iter().zip(["e1", "e2", "e3", ""]) {
        assert_eq!(ack.event_id, event_id);
        assert_eq!(ack.outcome, ReconcileOutcome::RECONCILE_OUTCOME_REJECTED.into());
        assert!(ack.message.contains("bytes"), "{}", ack.message);
        assert!(ack.write_to_bytes().unwrap().len() < 1000, "{} bytes", ack.message.len());
    }
    let [.., sound] = &acks[..] else { panic!() };
    assert_eq!(sound.outcome, ReconcileOutcome::RECONCILE_OUTCOME_SETTLED.into());
    // Whatever is remembered of the refused ones, and however.
    let pages = |name| server.sql().query_row(name, [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(pages("PRAGMA page_count") * pages("PRAGMA page_size") < 1 << 20);
}

/// What a hostile client may send, as fields that come again up to `bytes`, and what it is told.
fn hostile(bytes: usize) -> Vec<(Vec<u8>, &'static str)> {
    let repeated = |field: &[u8]| field.repeat(bytes / field.len());
    let within = |number: u8, mut inner: Vec<u8>| {
        inner.truncate(bytes - 8);
        let mut outer = vec![number << 3 | 2];
        let mut length = inner.len();
        while length > 127 {
            outer.push(length as u8 | 128);
            length >>= 7;
        }
        outer.push(length as u8);
        [outer, inner].concat()
    };
    vec![
        (repeated(&[0x78, 1]), "fields"),
        (repeated(&[0x7a, 0]), "fields"),
        (repeated(&[0x2a, 0]), "fields"),
        (within(5, repeated(&[0x78, 1])), "fields"),
        (repeated(&[0x7b]), "wire type 3"),
        (repeated(&[0xff]), "a number without an end"),
        (within(6, repeated(&[0xff])), "UTF-8"),
        ([&[0x0a, 0xff, 0xff, 0xff, 0x7f], &repeated(b"a")[5..]].concat(), "ends within a field"),
    ]
}

fn raw_client(server: &TestServer) -> grpcio::Client {
    let env = std::sync::Arc::new(EnvBuilder::new().cq_count(1).build());
    grpcio::Client::new(ChannelBuilder::new(env).connect(&server.addr()))
}

#[test]
fn a_hostile_message_of_a_stream_is_refused_with_its_fault() {
    let server = TestServer::start(Config::default());
    let client = raw_client(&server);
    for (bytes, expected) in hostile(MAX_BYTES - 8) {
        let (mut sink, result) =
            client.client_streaming::<_, BulkResult>(&raw(&BULK_CREATE), options()).unwrap();
        // It may fail, because the call may be over by then.
        let _ = block_on(sink.send((bytes.clone(), WriteFlags::default())));
        let status = assert_status(block_on(result), RpcStatusCode::INVALID_ARGUMENT, expected);
        assert_eq!(violations(&status)[0].field, "requests[0]");

        let (mut sink, mut acks) = client.duplex_streaming(&raw(&RECONCILE), options()).unwrap();
        let _ = block_on(sink.send((bytes, WriteFlags::default())));
        let end = block_on(acks.next()).unwrap();
        let status = assert_status(end, RpcStatusCode::INVALID_ARGUMENT, expected);
        assert_eq!(violations(&status)[0].field, "ReconcileEvent");
    }
    assert_eq!(summary(&server.client()).invoice_count, 0);
}

#[test]
fn a_request_has_a_limit_of_its_own() {
    let server = TestServer::start(Config::default());
    let client = raw_client(&server);
    let (summary, export) = (raw(&GET_SUMMARY), raw(&EXPORT_INVOICES));
    let both = |bytes: &Vec<u8>| {
        let rows = client.server_streaming(&export, bytes, options()).unwrap();
        let of_export = Err::<(), _>(collect(rows).1.unwrap());
        [client.unary_call(&summary, bytes, options()).map(|_| ()), of_export]
    };
    for (bytes, _) in hostile(MAX_BYTES - 8) {
        for result in both(&bytes) {
            let text = "max_request_bytes is 65536";
            let status = assert_status(result, RpcStatusCode::RESOURCE_EXHAUSTED, text);
            assert_eq!(status.details().len(), 0, "waiting does not help");
        }
    }
    let junk = [0xff].repeat(65_536);
    for result in both(&junk) {
        assert_status(result, RpcStatusCode::INVALID_ARGUMENT, "not a valid message");
    }
}

#[test]
fn fields_of_a_newer_client_are_passed_over() {
    let server = TestServer::start(Config::default());
    let mut newer = invoice("a", 7);
    for number in 20..30 {
        newer.special_fields.mut_unknown_fields().add_varint(number, 1);
        newer.issued_at.as_mut().unwrap().special_fields.mut_unknown_fields().add_varint(number, 1);
    }
    assert_eq!(upload(&server.client(), [newer]).unwrap().total_cents, Some(7));
}
