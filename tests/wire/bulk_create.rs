//! BulkCreate.

use billstream::client::Stub;
use billstream::model::MAX_AMOUNT_CENTS;
use billstream::proto::error_details::{BadRequest, Status};
use billstream::proto::report::{BulkResult, CreateInvoiceRequest};
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
    let spoilt: [(&str, Spoil); 10] = [
        ("customer_id: is required", |i| i.customer_id.clear()),
        ("customer_id: contains a NUL", |i| i.customer_id = "a\0b".to_owned()),
        ("invoice_id: has 129 bytes", |i| i.invoice_id = "x".repeat(129)),
        ("total_amount_cents: 1000000000000001 is more than 1000000000000000", |i| {
            i.total_amount_cents = MAX_AMOUNT_CENTS + 1
        }),
        ("total_amount_cents: -1000000000000001 is less than -1000000000000000", |i| {
            i.total_amount_cents = -MAX_AMOUNT_CENTS - 1
        }),
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
    let fit = i64::MAX / MAX_AMOUNT_CENTS;
    // A credit note makes no room for an invoice, nor an invoice for a credit note: they may be of different customers.
    for (i, cents) in [(0, MAX_AMOUNT_CENTS), (1, -MAX_AMOUNT_CENTS)] {
        let largest = |n: i64| invoice(&format!("i{i}-{n}"), cents);
        let field = format!("requests[{fit}].total_amount_cents");
        let result = upload(&client, (0..=fit).map(largest));
        assert_status(result, RpcStatusCode::INVALID_ARGUMENT, &field);
        assert_eq!(summary(&client).invoice_count, i * fit);
        upload(&client, (0..fit).map(largest)).unwrap();
    }
    assert_eq!(summary(&client).totals[0].total_cents, 0);
}

/// No single amount takes from others what their currency has room for.
#[test]
fn an_amount_has_a_bound() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    for cents in [MAX_AMOUNT_CENTS + 1, i64::MAX] {
        let result = upload(&client, [invoice("a", cents)]);
        let bound = format!("total_amount_cents: {cents} is more than {MAX_AMOUNT_CENTS}");
        assert_status(result, RpcStatusCode::INVALID_ARGUMENT, &bound);
    }
    upload(&client, [invoice("a", MAX_AMOUNT_CENTS), invoice("b", 1)]).unwrap();
}

/// Under one batch_id: `rows` with its commit.
fn batch(client: &Stub, rows: &[CreateInvoiceRequest]) -> grpcio::Result<BulkResult> {
    let last = commit("batch", rows.len() as i64);
    upload(client, rows.iter().cloned().chain([last]))
}

#[test]
fn a_batch_id_names_one_content() {
    // So that some of it waits in the file, and some in memory.
    let config = Config { upload_memory_bytes: 300, ..Config::default() };
    let server = TestServer::start(config);
    let client = server.client();
    // One row has no id of its own: the server gives it one.
    let rows: Vec<_> = (0..20)
        .map(|i| invoice(&(if i == 3 { String::new() } else { i.to_string() }), i))
        .collect();
    let first = batch(&client, &rows).unwrap();
    let again = batch(&client, &rows).unwrap();
    assert_eq!(again, BulkResult { already_applied: true, ..first });

    type Change = fn(&mut Vec<CreateInvoiceRequest>);
    let changes: [Change; 9] = [
        |rows| rows[0].total_amount_cents += 1,
        |rows| rows[19].memo += ".",
        |rows| rows[7].currency = "EUR".to_owned(),
        |rows| rows[7].customer_id = "another".to_owned(),
        |rows| rows[7].issued_at.as_mut().unwrap().nanos = 1,
        |rows| rows[3].invoice_id = "given".to_owned(),
        |rows| rows.swap(5, 6),
        |rows| drop(rows.pop()),
        |rows| rows.push(invoice("more", 1)),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut other = rows.clone();
        change(&mut other);
        let refused = batch(&client, &other);
        assert_status(refused, RpcStatusCode::ABORTED, "\"batch\" was used for other content");
        assert_eq!(summary(&client).invoice_count, 20, "change {i}");
    }
}

#[test]
fn a_word_of_the_commit_header_that_is_not_known_is_refused() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    for word in ["Required", "true", "requird", ""] {
        let mut headers = MetadataBuilder::new();
        headers.add_str("billstream-commit", word).unwrap();
        let options = CallOption::default().headers(headers.build());
        let (mut sink, result) = client.bulk_create(options).unwrap();
        let result = block_on(async {
            // A refusal shows in the result.
            let _ = sink.send((invoice("a", 1), WriteFlags::default())).await;
            half_close(&mut sink).await;
            result.await
        });
        assert_status(result, RpcStatusCode::INVALID_ARGUMENT, "billstream-commit");
    }
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
        half_close(&mut sink).await;
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
