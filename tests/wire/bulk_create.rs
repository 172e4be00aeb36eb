//! BulkCreate.

use billstream::proto::error_details::{BadRequest, Status};
use billstream::proto::report::CreateInvoiceRequest;
use billstream::Config;
use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, MetadataBuilder, RpcStatusCode, WriteFlags};
use protobuf::Message;

use crate::common::*;

#[test]
fn an_upload_is_created_with_its_totals() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let result = upload(&client, (1..=5).map(|i| invoice(&format!("i{i}"), i))).unwrap();
    assert_eq!(result.created_count, 5);
    assert_eq!(result.total_cents, Some(15));
    assert_eq!((result.first_sequence, result.last_sequence), (1, 5));
    assert!(!result.already_applied);
    let mut euro = invoice("euro", 1);
    euro.currency = "EUR".to_owned();
    let mixed = upload(&client, [invoice("dollar", 2), euro]).unwrap();
    assert_eq!(mixed.total_cents, None, "two currencies are not added");
    assert_eq!(mixed.totals.len(), 2);
    assert_eq!((mixed.first_sequence, mixed.last_sequence), (6, 7));
    assert_eq!(summary(&client).invoice_count, 7);
}

#[test]
fn an_empty_upload_creates_nothing() {
    let server = TestServer::start(Config::default());
    let result = upload(&server.client(), []).unwrap();
    assert_eq!(result, Default::default());
}

#[test]
fn an_id_is_assigned_where_none_was_given() {
    let server = TestServer::start(Config::default());
    upload(&server.client(), [invoice("", 1), invoice("", 1)]).unwrap();
    let distinct: i64 = server
        .sql()
        .query_row(
            "SELECT count(DISTINCT invoice_id) FROM invoices WHERE invoice_id <> ''",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(distinct, 2);
}

#[test]
fn an_upload_larger_than_memory_waits_on_disk() {
    let config = Config { upload_memory_bytes: 1000, ..Config::default() };
    let server = TestServer::start(config);
    let result = upload(&server.client(), (0..5000).map(|i| invoice(&format!("i{i}"), 1))).unwrap();
    assert_eq!((result.created_count, result.total_cents), (5000, Some(5000)));
    let left: Vec<_> =
        std::fs::read_dir(server.dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_str().unwrap().starts_with("bills.db")), "{left:?}");
}

#[test]
fn the_first_bad_message_ends_the_upload_and_is_named() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    type Spoil = fn(&mut CreateInvoiceRequest);
    let spoilt: [(&str, Spoil); 9] = [
        ("customer_id: is required", |i| i.customer_id.clear()),
        ("customer_id: contains a NUL", |i| i.customer_id = "a\0b".to_owned()),
        ("invoice_id: has 129 bytes", |i| i.invoice_id = "x".repeat(129)),
        ("total_amount_cents: -1 is less than 0", |i| i.total_amount_cents = -1),
        ("currency: \"usd\"", |i| i.currency = "usd".to_owned()),
        ("currency: \"ZZZ\"", |i| i.currency = "ZZZ".to_owned()),
        ("issued_at: is required", |i| i.issued_at = Default::default()),
        ("issued_at: 1000000000 ns", |i| i.issued_at.as_mut().unwrap().nanos = 1_000_000_000),
        ("memo: has 1025 bytes", |i| i.memo = "m".repeat(1025)),
    ];
    for (expected, spoil) in spoilt {
        let mut bad = invoice("bad", 1);
        spoil(&mut bad);
        let result = upload(&client, [invoice("good", 1), bad, invoice("more", 1)]);
        let status = assert_status(result, RpcStatusCode::INVALID_ARGUMENT, expected);
        let details = Status::parse_from_bytes(status.details()).unwrap().details;
        let bad_request = details[0].unpack::<BadRequest>().unwrap().unwrap();
        let field = &bad_request.field_violations[0].field;
        assert_eq!(field, &format!("requests[1].{}", expected.split(':').next().unwrap()));
    }
    assert_eq!(summary(&client).invoice_count, 0);
}

#[test]
fn a_taken_id_is_refused_and_nothing_is_created() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("taken", 1)]).unwrap();
    let again = upload(&client, [invoice("free", 1), invoice("taken", 1)]);
    assert_status(again, RpcStatusCode::ALREADY_EXISTS, "requests[1].invoice_id: \"taken\"");
    let twice = upload(&client, [invoice("new", 1), invoice("new", 1)]);
    assert_status(twice, RpcStatusCode::ALREADY_EXISTS, "requests[1].invoice_id: \"new\"");
    assert_eq!(summary(&client).invoice_count, 1);
}

#[test]
fn a_total_that_leaves_64_bits_is_refused() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let result = upload(&client, [invoice("a", i64::MAX), invoice("b", 1)]);
    assert_status(result, RpcStatusCode::INVALID_ARGUMENT, "requests[1].total_amount_cents");
    assert_eq!(summary(&client).invoice_count, 0);
}

#[test]
fn a_commit_must_count_what_came_and_be_the_last() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    for count in [0, 1, 3] {
        let result = upload(&client, [invoice("a", 1), invoice("b", 1), commit("batch", count)]);
        assert_status(result, RpcStatusCode::ABORTED, &format!("counts {count} invoices, and 2"));
    }
    let result = upload(&client, [commit("batch", 0), invoice("a", 1)]);
    assert_status(result, RpcStatusCode::INVALID_ARGUMENT, "requests[1]: came after the commit");
    let mut both = commit("batch", 0);
    both.memo = "a memo".to_owned();
    assert_status(upload(&client, [both]), RpcStatusCode::INVALID_ARGUMENT, "requests[0].commit");
    assert_eq!(summary(&client).invoice_count, 0);
}

#[test]
fn the_same_batch_again_gives_the_first_result() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let rows = || [invoice("a", 1), invoice("b", 2), commit("batch-1", 2)];
    let first = upload(&client, rows()).unwrap();
    upload(&client, [invoice("c", 3)]).unwrap();
    let mut second = upload(&client, rows()).unwrap();
    assert!(std::mem::take(&mut second.already_applied));
    assert_eq!(first, second);
    assert_eq!(summary(&client).invoice_count, 3);
    let other = upload(&client, [invoice("d", 1), commit("batch-1", 1)]);
    assert_status(other, RpcStatusCode::ABORTED, "batch-1");
}

#[test]
fn an_upload_that_promised_a_commit_is_nothing_without_it() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let mut headers = MetadataBuilder::new();
    headers.add_str("billstream-commit", "required").unwrap();
    let options = CallOption::default().headers(headers.build());
    let (mut sink, result) = client.bulk_create(options).unwrap();
    let result = block_on(async {
        sink.send((invoice("a", 1), WriteFlags::default())).await.unwrap();
        sink.close().await.unwrap();
        result.await
    });
    assert_status(result, RpcStatusCode::ABORTED, "without its commit");
    assert_eq!(summary(&client).invoice_count, 0);
}

#[test]
fn limits_refuse_an_upload_whole() {
    let config = Config { max_upload_rows: 3, ..Config::default() };
    let server = TestServer::start(config);
    let rows = |n: i64| (0..n).map(|i| invoice(&i.to_string(), 1));
    let result = upload(&server.client(), rows(4));
    assert_status(result, RpcStatusCode::RESOURCE_EXHAUSTED, "max_upload_rows");
    assert_eq!(upload(&server.client(), rows(3)).unwrap().created_count, 3);

    let config = Config { max_upload_bytes: 200, ..Config::default() };
    let server = TestServer::start(config);
    assert_status(
        upload(&server.client(), rows(40)),
        RpcStatusCode::RESOURCE_EXHAUSTED,
        "max_upload_bytes",
    );
    assert_eq!(summary(&server.client()).invoice_count, 0);
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let server = TestServer::start(Config::default());
    let mut large = invoice("large", 1);
    large.memo = "m".repeat(5 << 20);
    let result = upload(&server.client(), [invoice("a", 1), large]);
    assert_eq!(status(result).code(), RpcStatusCode::RESOURCE_EXHAUSTED);
    assert_eq!(summary(&server.client()).invoice_count, 0);
}
