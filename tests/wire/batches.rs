//! BulkCreateBatches and ReconcileBatches: what the calls with one row a message promise, in fewer messages.

use std::cell::Cell;

use billstream::client::Stub;
use billstream::grpc::methods::{BULK_CREATE_BATCHES, RECONCILE_BATCHES};
use billstream::proto::report::{
    BulkResult, CreateInvoiceBatch, CreateInvoiceRequest, ReconcileAck, ReconcileAckBatch,
    ReconcileEvent, ReconcileEventBatch, ReconcileOutcome,
};
use billstream::server::check;
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, ChannelBuilder, EnvBuilder, MetadataBuilder, RpcStatusCode, WriteFlags};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use protobuf::Message;

use crate::common::*;
use crate::reconcile::reconcile;

fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

fn upload_batches(
    client: &Stub,
    options: CallOption,
    batches: &[&[CreateInvoiceRequest]],
) -> grpcio::Result<BulkResult> {
    let (mut sink, result) = client.bulk_create_batches(options)?;
    block_on(async move {
        for requests in batches {
            let batch =
                CreateInvoiceBatch { requests: requests.to_vec(), ..CreateInvoiceBatch::default() };
            // A refusal shows in the result.
            if sink.send((batch, WriteFlags::default())).await.is_err() {
                return result.await;
            }
        }
        let _ = sink.close().await;
        result.await
    })
}

/// The acknowledgements of each batch, and how the call ended.
fn reconcile_batches(
    client: &Stub,
    batches: Vec<Vec<ReconcileEvent>>,
) -> (Vec<Vec<ReconcileAck>>, Option<grpcio::Error>) {
    let (mut sink, acks) = client.reconcile_batches(options()).unwrap();
    let sender = std::thread::spawn(move || {
        block_on(async {
            for events in batches {
                let batch = ReconcileEventBatch { events, ..ReconcileEventBatch::default() };
                // A refusal shows in the acknowledgements.
                if sink.send((batch, WriteFlags::default())).await.is_err() {
                    return;
                }
            }
            half_close(&mut sink).await;
        })
    });
    let (acks, error) = collect(acks);
    sender.join().unwrap();
    (acks.into_iter().map(|batch: ReconcileAckBatch| batch.acks).collect(), error)
}

/// Where a list of `len` is cut; pieces may be empty.
fn cuts(len: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..=len, 0..8).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

fn pieces<'a, T>(all: &'a [T], cuts: &[usize]) -> Vec<&'a [T]> {
    let ends = cuts.iter().copied().chain([all.len()]);
    let mut start = 0;
    ends.map(|end| &all[std::mem::replace(&mut start, end)..end]).collect()
}

/// The name of an upload is that of its content, so the same one message by message is known.
#[test]
fn an_upload_in_any_batches_is_the_upload() {
    // So that some of it waits in the file, and some in memory.
    let server = TestServer::start(Config { upload_memory_bytes: 2000, ..Config::default() });
    let client = server.client();
    let created = Cell::new(0);
    let strategy = (0..60usize).prop_flat_map(|rows| (Just(rows), cuts(rows + 1)));
    let mut runner = TestRunner::new(ProptestConfig { cases: 40, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |(rows, cuts)| {
        let name = format!("batch-{}", created.replace(created.get() + 1));
        let row = |i: usize| invoice(&format!("{name}-{i}"), i as i64);
        let mut requests: Vec<_> = (0..rows).map(row).collect();
        requests.push(commit(&name, rows as i64));
        let first =
            upload_batches(&client, CallOption::default(), &pieces(&requests, &cuts)).unwrap();
        prop_assert_eq!(first.created_count, rows as i64);
        let again = upload(&client, requests).unwrap();
        prop_assert_eq!(again, BulkResult { already_applied: true, ..first });
        Ok(())
    });
    result.unwrap();
    assert!(check(&server.config).unwrap().faults.is_empty());
}

#[test]
fn a_fault_is_named_by_its_place_in_the_whole_upload() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let rows: Vec<_> = (0..9).map(|i| invoice(&i.to_string(), 1)).collect();
    let changed = |i: usize, change: fn(&mut CreateInvoiceRequest)| {
        let mut rows = rows.clone();
        change(&mut rows[i]);
        rows
    };
    let cases = [
        (changed(7, |row| row.currency = "???".to_owned()), "requests[7].currency"),
        (changed(4, |row| row.customer_id.clear()), "requests[4].customer_id"),
        (changed(3, |row| *row = commit("", 3)), "requests[4]: came after the commit"),
    ];
    for (rows, expected) in cases {
        let batches = [&rows[..2], &rows[2..2], &rows[2..6], &rows[6..]];
        let result = upload_batches(&client, CallOption::default(), &batches);
        assert_status(result, RpcStatusCode::INVALID_ARGUMENT, expected);
    }
    let taken = changed(8, |row| row.invoice_id = "0".to_owned());
    let result = upload_batches(&client, CallOption::default(), &[&taken[..5], &taken[5..]]);
    assert_status(result, RpcStatusCode::ALREADY_EXISTS, "0");
    assert_eq!(summary(&client).invoice_count, 0);
}

#[test]
fn a_promised_commit_is_needed() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let required = || {
        let mut headers = MetadataBuilder::new();
        headers.add_str("billstream-commit", "required").unwrap();
        CallOption::default().headers(headers.build())
    };
    let rows = [invoice("a", 1), invoice("b", 2), commit("", 2)];
    let refused = upload_batches(&client, required(), &[&rows[..2]]);
    assert_status(refused, RpcStatusCode::ABORTED, "without its commit");
    let created = upload_batches(&client, required(), &[&rows]).unwrap();
    assert_eq!((created.created_count, created.total_cents), (2, Some(3)));
}

#[test]
fn events_in_any_batches_have_the_acknowledgements_of_the_events() {
    // More than one commit for a batch, and a queue that does not hold one.
    let small = |events| Config {
        reconcile_batch_events: events,
        reconcile_queue_bytes: 1_000,
        ..Config::default()
    };
    let servers = [5, 256].map(|events| TestServer::start(small(events)));
    let invoices = |name: &str| (0..5).map(|i| invoice(&format!("{name}-{i}"), 20)).collect();
    let number = Cell::new(0);
    let strategy = (0..60usize).prop_flat_map(|events| (Just(events), cuts(events)));
    let mut runner = TestRunner::new(ProptestConfig { cases: 20, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |(count, cuts)| {
        let name = format!("case-{}", number.replace(number.get() + 1));
        // Some come twice, and some have no invoice.
        let events: Vec<_> = (0..count)
            .map(|i| event(&format!("{name}-{}", i % 50), &format!("{name}-{}", i % 7), 1))
            .collect();
        let [batched, single] = servers.each_ref().map(|server| {
            let rows: Vec<_> = invoices(&name);
            upload(&server.client(), rows).unwrap();
            server.client()
        });
        let expected = reconcile(&single, &events);
        let batches = pieces(&events, &cuts);
        let lengths: Vec<_> = batches.iter().map(|batch| batch.len()).collect();
        let batches = batches.into_iter().map(<[_]>::to_vec).collect();
        let (acks, error) = reconcile_batches(&batched, batches);
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(acks.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        prop_assert_eq!(acks.concat(), expected);
        Ok(())
    });
    result.unwrap();
    assert!(check(&servers[0].config).unwrap().faults.is_empty());
}

/// Each on disk before the next is sent, and no further message is needed for it.
#[test]
fn a_batch_is_acknowledged_while_the_input_is_open() {
    let server = TestServer::start(Config { reconcile_batch_events: 7, ..Config::default() });
    let client = server.client();
    upload(&client, [invoice("a", 100_000)]).unwrap();
    let (mut sink, mut acks) = client.reconcile_batches(options()).unwrap();
    block_on(async {
        for (round, count) in [1, 0, 7, 50, 0, 1000].into_iter().enumerate() {
            let events = (0..count).map(|i| event(&format!("{round}-{i}"), "a", 1)).collect();
            let batch = ReconcileEventBatch { events, ..Default::default() };
            sink.send((batch, WriteFlags::default())).await.unwrap();
            let acks = acks.next().await.unwrap().unwrap().acks;
            assert_eq!(acks.len(), count);
            let kept: i64 = server
                .sql()
                .query_row(
                    "SELECT count(*) FROM reconcile_events WHERE event_id LIKE ?1",
                    [format!("{round}-%")],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(kept as usize, count);
        }
        half_close(&mut sink).await;
        assert!(acks.next().await.is_none());
    });
}

#[test]
fn a_batch_over_its_limit_is_refused_and_none_of_it_is_applied() {
    let server = TestServer::start(Config { max_batch_rows: 10, ..Config::default() });
    let client = server.client();
    let rows: Vec<_> = (0..11).map(|i| invoice(&i.to_string(), 100)).collect();
    let refused = upload_batches(&client, CallOption::default(), &[&rows[..1], &rows]);
    let text = "requests[1] begins a batch of more than 10 rows, max_batch_rows";
    assert_status(refused, RpcStatusCode::RESOURCE_EXHAUSTED, text);
    upload_batches(&client, CallOption::default(), &[&rows[..10], &rows[10..]]).unwrap();

    let events = |name: &str, count: usize| {
        (0..count).map(|i| event(&format!("{name}-{i}"), "0", 1)).collect::<Vec<_>>()
    };
    let (mut sink, mut acks) = client.reconcile_batches(options()).unwrap();
    let end = block_on(async {
        let batch = |events| ReconcileEventBatch { events, ..ReconcileEventBatch::default() };
        let good = batch(events("a", 10));
        sink.send((good, WriteFlags::default())).await.unwrap();
        // Before what ends the call: grpcio gives no message up that comes together with a failure.
        assert_eq!(acks.next().await.unwrap().unwrap().acks.len(), 10);
        for events in [events("b", 11), events("c", 1)] {
            // It may fail, because the call may be over by then.
            let _ = sink.send((batch(events), WriteFlags::default())).await;
        }
        acks.next().await.unwrap()
    });
    assert_status(end, RpcStatusCode::RESOURCE_EXHAUSTED, "more than 10 rows, max_batch_rows");
    assert_eq!(summary(&client).totals[0].paid_cents, 10);
}

fn raw_client(server: &TestServer) -> grpcio::Client {
    let env = std::sync::Arc::new(EnvBuilder::new().cq_count(1).build());
    grpcio::Client::new(ChannelBuilder::new(env).connect(&server.addr()))
}

/// A batch of which the third row is `row`.
fn with_row(row: &[u8]) -> Vec<u8> {
    let good = event("e", "a", 1).write_to_bytes().unwrap();
    let field = |row: &[u8]| {
        let length = [row.len() as u8 | 0x80, (row.len() >> 7) as u8];
        [&[0x0a][..], &length, row].concat()
    };
    [field(&good), field(&good), field(row)].concat()
}

#[test]
fn a_malformed_batch_is_refused_with_its_fault() {
    let server = TestServer::start(Config::default());
    let client = raw_client(&server);
    let empty_rows = [0x0a, 0].repeat(2 << 20);
    let invalid = RpcStatusCode::INVALID_ARGUMENT;
    let cases = [
        (empty_rows, RpcStatusCode::RESOURCE_EXHAUSTED, ["max_batch_rows"; 2]),
        (
            [0x12, 0].repeat(2 << 20),
            invalid,
            ["requests[0]: begins", "ReconcileEventBatch: begins"],
        ),
        (vec![0x08, 1], invalid, ["field 1 is not of wire type 0"; 2]),
        (vec![0x0a, 9, 1], invalid, ["it ends within a field"; 2]),
        (
            with_row(&[0x0a, 9]),
            invalid,
            [
                "requests[2]: not a valid message: it ends",
                "events[2]: not a valid message: it ends",
            ],
        ),
        (
            with_row(&[0x78, 1].repeat(65)),
            invalid,
            ["requests[2]: not a valid message: it has", "events[2]: not a valid message: it has"],
        ),
    ];
    for (bytes, code, [of_upload, of_events]) in cases {
        let method = raw(&BULK_CREATE_BATCHES);
        let (mut sink, result) =
            client.client_streaming::<_, BulkResult>(&method, options()).unwrap();
        // It may fail, because the call may be over by then.
        let _ = block_on(sink.send((bytes.clone(), WriteFlags::default())));
        assert_status(block_on(result), code, of_upload);

        let (mut sink, mut acks) =
            client.duplex_streaming(&raw(&RECONCILE_BATCHES), options()).unwrap();
        let end = block_on(async {
            let _ = sink.send((bytes, WriteFlags::default())).await;
            acks.next().await.unwrap()
        });
        assert_status::<ReconcileAckBatch>(end, code, of_events);
    }
    assert_eq!(summary(&server.client()).invoice_count, 0);
    let kept = "SELECT count(*) FROM reconcile_events";
    assert_eq!(server.sql().query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn fields_of_a_newer_client_are_passed_over() {
    let server = TestServer::start(Config::default());
    let mut rows = vec![invoice("a", 1); 1000];
    for (i, row) in rows.iter_mut().enumerate() {
        row.invoice_id = i.to_string();
        let fields = row.special_fields.mut_unknown_fields();
        (20..60).for_each(|number| fields.add_varint(number, 1));
    }
    let result = upload_batches(&server.client(), CallOption::default(), &[&rows]);
    assert_eq!(result.unwrap().total_cents, Some(1000));
}

/// What most clients take as a message, by default.
const CLIENT_BYTES: u64 = 4 << 20;

#[test]
fn the_longest_acknowledgements_fit_in_a_message_of_a_client() {
    let server = TestServer::start(Config::default());
    let most = server.config.max_batch_rows;
    let events = (0..most).map(|i| ReconcileEvent {
        event_id: format!("{i:0128}"),
        // Quoted, each byte takes several.
        currency: "\u{1}".repeat(64),
        ..event("", "a", 1)
    });
    let (acks, error) = reconcile_batches(&server.client(), vec![events.collect()]);
    assert!(error.is_none(), "{error:?}");
    assert!(acks[0].iter().all(|ack| ack.message.contains("ISO 4217")));
    let rejected = ReconcileOutcome::RECONCILE_OUTCOME_REJECTED.into();
    assert!(acks[0].iter().all(|ack| ack.outcome == rejected));
    let batch = ReconcileAckBatch { acks: acks[0].clone(), ..Default::default() };
    let bytes = batch.compute_size();
    println!("{most} acknowledgements of {bytes} bytes");
    assert!(bytes < CLIENT_BYTES, "{bytes}");
}
