//! Reconcile.

use billstream::client::Client;
use billstream::proto::report::{ReconcileAck, ReconcileEvent, ReconcileOutcome, SummaryRequest};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, RpcStatusCode, WriteFlags};

use crate::common::*;
use ReconcileOutcome::*;

fn reconcile(client: &Client, events: &[ReconcileEvent]) -> Vec<ReconcileAck> {
    let (mut sink, acks) = client.reconcile(CallOption::default()).unwrap();
    let events = events.to_vec();
    let sender = std::thread::spawn(move || {
        block_on(async {
            for event in events {
                sink.send((event, WriteFlags::default())).await.unwrap();
            }
            sink.close().await.unwrap();
        })
    });
    let (acks, error) = collect(acks);
    sender.join().unwrap();
    assert!(error.is_none(), "{error:?}");
    acks
}

fn outcomes(acks: &[ReconcileAck]) -> Vec<(ReconcileOutcome, i64, bool)> {
    acks.iter()
        .map(|ack| (ack.outcome.enum_value().unwrap(), ack.outstanding_cents, ack.duplicate))
        .collect()
}

#[test]
fn payments_bring_an_invoice_from_open_to_overpaid() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 100)]).unwrap();
    let mut foreign = event("e6", "a", 1);
    foreign.currency = "EUR".to_owned();
    let events = [
        event("e1", "a", 30),
        event("e2", "a", 70),
        event("e3", "a", 5),
        event("e1", "a", 30),
        event("e5", "nothing", 1),
        foreign,
    ];
    let acks = reconcile(&client, &events);
    assert_eq!(
        outcomes(&acks),
        [
            (RECONCILE_OUTCOME_PARTIAL, 70, false),
            (RECONCILE_OUTCOME_SETTLED, 0, false),
            (RECONCILE_OUTCOME_OVERPAID, -5, false),
            (RECONCILE_OUTCOME_PARTIAL, 70, true),
            (RECONCILE_OUTCOME_UNKNOWN_INVOICE, 0, false),
            (RECONCILE_OUTCOME_CURRENCY_MISMATCH, -5, false),
        ]
    );
    let ids: Vec<_> = acks.iter().map(|ack| ack.event_id.as_str()).collect();
    assert_eq!(ids, ["e1", "e2", "e3", "e1", "e5", "e6"]);
    let totals = summary(&client).totals;
    assert_eq!((totals[0].paid_cents, totals[0].outstanding_cents), (105, -5));
}

#[test]
fn what_cannot_be_applied_does_not_end_the_stream() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 100), invoice("void", 100)]).unwrap();
    server.sql().execute("UPDATE invoices SET status = 5 WHERE invoice_id = 'void'", []).unwrap();
    let events = [
        event("e1", "void", 1),
        event("e2", "a", 0),
        event("", "a", 1),
        event("e4", "a", i64::MAX),
        event("e5", "a", i64::MAX),
        event("e6", "a", 1),
        event("e2", "a", 10),
    ];
    let acks = reconcile(&client, &events);
    let outcomes: Vec<_> = acks.iter().map(|ack| ack.outcome.enum_value().unwrap()).collect();
    assert_eq!(
        outcomes,
        [
            RECONCILE_OUTCOME_INVOICE_VOID,
            RECONCILE_OUTCOME_REJECTED,
            RECONCILE_OUTCOME_REJECTED,
            RECONCILE_OUTCOME_OVERPAID,
            RECONCILE_OUTCOME_REJECTED,
            RECONCILE_OUTCOME_REJECTED,
            RECONCILE_OUTCOME_REJECTED,
        ]
    );
    assert_eq!(acks[1].message, "amount_cents: 0 is less than 1");
    assert!(acks[2].message.starts_with("event_id: is required"), "{:?}", acks[2]);
    assert!(acks[4].message.contains("64 bits"), "{:?}", acks[4]);
    assert!(acks[6].duplicate, "a refused event keeps its first outcome");
}

#[test]
fn acks_come_while_the_input_is_open() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 100)]).unwrap();
    let (mut sink, mut acks) = client.reconcile(CallOption::default()).unwrap();
    block_on(async {
        for i in 0..20 {
            sink.send((event(&format!("e{i}"), "a", 1), WriteFlags::default())).await.unwrap();
            let ack = acks.next().await.unwrap().unwrap();
            assert_eq!(ack.event_id, format!("e{i}"));
            // On disk before it was acknowledged, as another connection sees.
            let paid: i64 = server
                .sql()
                .query_row("SELECT paid_cents FROM invoices", [], |row| row.get(0))
                .unwrap();
            assert_eq!(paid, i + 1);
        }
        sink.close().await.unwrap();
        assert!(acks.next().await.is_none());
    });
}

#[test]
fn a_repeated_event_of_another_stream_is_not_applied_again() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 100)]).unwrap();
    let events: Vec<_> = (0..50).map(|i| event(&format!("e{i}"), "a", 1)).collect();
    let first = reconcile(&client, &events);
    let mut second = reconcile(&client, &events);
    second.iter_mut().for_each(|ack| assert!(std::mem::take(&mut ack.duplicate)));
    assert_eq!(first, second);
    assert_eq!(summary(&client).totals[0].paid_cents, 50);
    let request = SummaryRequest { customer_id: "cust-1".to_owned(), ..Default::default() };
    let of_customer = client.get_summary(&request, CallOption::default()).unwrap();
    assert_eq!(of_customer.totals[0].paid_cents, 50);
}

#[test]
fn an_idle_stream_ends() {
    let config = Config { idle_timeout_ms: 50, ..Config::default() };
    let server = TestServer::start(config);
    let client = server.client();
    let (mut sink, mut acks) = client.reconcile(CallOption::default()).unwrap();
    let end = block_on(async {
        sink.send((event("e", "a", 1), WriteFlags::default())).await.unwrap();
        acks.next().await.unwrap().unwrap();
        acks.next().await.unwrap()
    });
    assert_status(end, RpcStatusCode::DEADLINE_EXCEEDED, "idle_timeout_ms");
    eventually("the stream is closed", || server.get().streams_open() == 0);
}
