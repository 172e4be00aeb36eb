//! Reconcile.

use billstream::client::Stub;
use billstream::model::MAX_AMOUNT_CENTS;
use billstream::proto::report::{ReconcileAck, ReconcileEvent, ReconcileOutcome, SummaryRequest};
use billstream::server::check;
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, RpcStatusCode, WriteFlags};

use crate::common::*;
use ReconcileOutcome::*;

pub fn reconcile(client: &Stub, events: &[ReconcileEvent]) -> Vec<ReconcileAck> {
    let (mut sink, acks) = client.reconcile(CallOption::default()).unwrap();
    let events = events.to_vec();
    let sender = std::thread::spawn(move || {
        block_on(async {
            for event in events {
                sink.send((event, WriteFlags::default())).await.unwrap();
            }
            half_close(&mut sink).await;
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
        event("e4", "a", MAX_AMOUNT_CENTS + 1),
        event("e5", "a", MAX_AMOUNT_CENTS),
        event("e6", "a", 1),
    ];
    let acks = reconcile(&client, &events);
    let outcomes: Vec<_> = acks.iter().map(|ack| ack.outcome.enum_value().unwrap()).collect();
    assert_eq!(
        outcomes,
        [
            RECONCILE_OUTCOME_INVOICE_VOID,
            RECONCILE_OUTCOME_REJECTED,
            RECONCILE_OUTCOME_REJECTED,
            RECONCILE_OUTCOME_REJECTED,
            RECONCILE_OUTCOME_OVERPAID,
            RECONCILE_OUTCOME_OVERPAID,
        ]
    );
    assert_eq!(acks[1].message, "amount_cents: 0 is less than 1");
    assert!(acks[2].message.starts_with("event_id: is required"), "{:?}", acks[2]);
    let bound = "amount_cents: 1000000000000001 is more than 1000000000000000";
    assert_eq!(acks[3].message, bound);
}

/// Amounts of before the bound, or of the shell, may be there.
#[test]
fn a_sum_that_would_leave_64_bits_is_refused() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 100)]).unwrap();
    let most = i64::MAX - MAX_AMOUNT_CENTS;
    server.sql().execute("UPDATE invoices SET paid_cents = ?1, status = 4", [most]).unwrap();
    let events = [event("e1", "a", MAX_AMOUNT_CENTS), event("e2", "a", 1)];
    let acks = reconcile(&client, &events);
    assert_eq!(acks[0].outcome.enum_value().unwrap(), RECONCILE_OUTCOME_OVERPAID);
    assert_eq!(acks[1].outcome.enum_value().unwrap(), RECONCILE_OUTCOME_REJECTED);
    assert!(acks[1].message.contains("64 bits"), "{:?}", acks[1]);
}

/// Of what becomes of an event, only an applied one is remembered.
#[test]
fn a_refused_event_is_judged_anew() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 100), invoice("void", 100)]).unwrap();
    server.sql().execute("UPDATE invoices SET status = 5 WHERE invoice_id = 'void'", []).unwrap();
    let mut foreign = event("e1", "a", 10);
    foreign.currency = "EUR".to_owned();
    let refused = [
        foreign,
        event("e2", "a", 0),
        event("e3", "void", 10),
        event("e4", "late", 10),
        event("e5", "a", MAX_AMOUNT_CENTS + 1),
    ];
    for _ in 0..2 {
        assert!(reconcile(&client, &refused).iter().all(|ack| !ack.duplicate));
    }
    server.sql().execute("UPDATE invoices SET status = 1 WHERE invoice_id = 'void'", []).unwrap();
    upload(&client, [invoice("late", 10)]).unwrap();
    let corrected = [
        event("e1", "a", 10),
        event("e2", "a", 20),
        event("e3", "void", 10),
        event("e4", "late", 10),
        event("e5", "a", 70),
    ];
    let acks = reconcile(&client, &corrected);
    let outcomes = outcomes(&acks);
    assert_eq!(
        outcomes,
        [
            (RECONCILE_OUTCOME_PARTIAL, 90, false),
            (RECONCILE_OUTCOME_PARTIAL, 70, false),
            (RECONCILE_OUTCOME_PARTIAL, 90, false),
            (RECONCILE_OUTCOME_SETTLED, 0, false),
            (RECONCILE_OUTCOME_SETTLED, 0, false),
        ]
    );
    // Whatever became of its invoice since.
    server.sql().execute("UPDATE invoices SET status = 5 WHERE invoice_id = 'void'", []).unwrap();
    let mut again = reconcile(&client, &corrected);
    again.iter_mut().for_each(|ack| assert!(std::mem::take(&mut ack.duplicate), "{ack:?}"));
    assert_eq!(again, acks);
}

#[test]
fn another_payment_under_a_known_event_id_is_told_and_changes_nothing() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let mut euro = invoice("euro", 100);
    euro.currency = "EUR".to_owned();
    upload(&client, [invoice("a", 100), invoice("b", 100), euro]).unwrap();
    reconcile(&client, &[event("e", "a", 10)]);
    let mut in_euro = event("e", "euro", 10);
    in_euro.currency = "EUR".to_owned();
    let others = [
        (event("e", "a", 11), 90),
        (event("e", "b", 10), 100),
        (in_euro, 100),
        (event("e", "nothing", 10), 0),
    ];
    for (other, outstanding) in others {
        let [ack] = &reconcile(&client, &[other])[..] else { panic!() };
        let expected = (RECONCILE_OUTCOME_EVENT_ID_REUSED, outstanding, false);
        assert_eq!(outcomes(std::slice::from_ref(ack)), [expected]);
        assert!(ack.message.contains("another payment: 10 USD of \"a\""), "{ack:?}");
    }
    // What is not its content may be written anew.
    let mut same = event("e", "a", 10);
    (same.received_at, same.reference) = (time(1_200_000_000), "sent again".to_owned());
    let acks = reconcile(&client, &[same]);
    assert_eq!(outcomes(&acks), [(RECONCILE_OUTCOME_PARTIAL, 90, true)]);
    let paid: i64 = summary(&client).totals.iter().map(|total| total.paid_cents).sum();
    assert_eq!(paid, 10);
    assert!(check(&server.config).unwrap().faults.is_empty());
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
        half_close(&mut sink).await;
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
