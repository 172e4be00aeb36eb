//! GetInvoice and ExportEvents: the ledger, as it is read.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use billstream::client::Stub;
use billstream::proto::report::{
    Event, EventKind, ExportEventsRequest, ExportRequest, GetInvoiceRequest, GetInvoiceResponse,
    InvoiceStatus, ReconcileEvent, ReconcileOutcome,
};
use billstream::Config;
use futures::executor::block_on;
use futures::StreamExt;
use grpcio::{CallOption, RpcStatusCode};

use crate::common::*;

fn get(client: &Stub, request: &GetInvoiceRequest) -> grpcio::Result<GetInvoiceResponse> {
    client.get_invoice(request, CallOption::default())
}

fn of(invoice_id: &str) -> GetInvoiceRequest {
    GetInvoiceRequest { invoice_id: invoice_id.to_owned(), ..GetInvoiceRequest::default() }
}

fn events(client: &Stub, request: &ExportEventsRequest) -> Vec<Event> {
    let stream = client.export_events(request, CallOption::default()).unwrap();
    let (batches, error) = collect(stream);
    assert!(error.is_none(), "{error:?}");
    assert!(batches.iter().all(|batch| !batch.events.is_empty()));
    batches.into_iter().flat_map(|batch| batch.events).collect()
}

fn all_events(client: &Stub) -> Vec<Event> {
    events(client, &ExportEventsRequest::new())
}

fn after(after_event_sequence: i64) -> ExportEventsRequest {
    ExportEventsRequest { after_event_sequence, ..ExportEventsRequest::default() }
}

fn numbers(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.event_sequence).collect()
}

/// A server whose ledger has so many events, of 100 bytes or more on the wire, all of one invoice.
fn with_events(count: i64, config: Config) -> TestServer {
    let server = TestServer::start(config);
    upload(&server.client(), [invoice("a", 1_000_000)]).unwrap();
    let sql = server.sql();
    sql.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO reconcile_events
         SELECT i, i - 1, 'event-' || i, 'a', 1, 1, 'USD', 0, 0, printf('%.60c', 'r'), 1, 2, 1000000 - i FROM n;
         UPDATE ledger SET last_event_sequence = {count};
         UPDATE invoices SET last_event_sequence = {count}, paid_cents = {count}, status = 2;
         COMMIT"
    ))
    .unwrap();
    server
}

#[test]
fn an_invoice_comes_with_its_events_newest_first() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, [invoice("a", 100), invoice("b", 100)]).unwrap();
    let payment = |id: &str, invoice_id: &str, cents: i64| ReconcileEvent {
        reference: format!("reference of {id}"),
        ..event(id, invoice_id, cents)
    };
    let sent = [payment("1", "a", 30), payment("2", "b", 1), payment("3", "a", 70)];
    reconcile(&client, sent.clone());
    let found = get(&client, &of("a")).unwrap();
    let paid = found.invoice.unwrap();
    assert_eq!((paid.paid_cents, &paid.memo[..]), (100, "a memo"));
    let expected = |sequence: i64, sent: &ReconcileEvent| Event {
        event_sequence: sequence,
        event_id: sent.event_id.clone(),
        invoice_id: sent.invoice_id.clone(),
        kind: EventKind::EVENT_KIND_PAYMENT.into(),
        amount_cents: sent.amount_cents,
        currency: sent.currency.clone(),
        received_at: sent.received_at.clone(),
        reference: sent.reference.clone(),
        paid_change_cents: sent.amount_cents,
        ..Event::default()
    };
    let settled = Event {
        outcome: ReconcileOutcome::RECONCILE_OUTCOME_SETTLED.into(),
        invoice_status: InvoiceStatus::INVOICE_STATUS_PAID.into(),
        ..expected(3, &sent[2])
    };
    let partial = Event {
        outcome: ReconcileOutcome::RECONCILE_OUTCOME_PARTIAL.into(),
        invoice_status: InvoiceStatus::INVOICE_STATUS_PARTIALLY_PAID.into(),
        outstanding_cents: 70,
        ..expected(1, &sent[0])
    };
    assert_eq!(found.events, [settled.clone(), partial.clone()]);
    assert_eq!(found.next_before_event_sequence, 0);
    let exported = all_events(&client);
    assert_eq!(
        (numbers(&exported), &exported[0], &exported[2]),
        (vec![1, 2, 3], &partial, &settled)
    );
}

#[test]
fn an_invoice_that_is_not_there_is_not_found() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let none = get(&client, &of("none"));
    assert_status(none, RpcStatusCode::NOT_FOUND, "no invoice has the invoice_id \"none\"");
    let wrong =
        GetInvoiceRequest { max_events: -1, before_event_sequence: -1, ..GetInvoiceRequest::new() };
    let status = assert_status(get(&client, &wrong), RpcStatusCode::INVALID_ARGUMENT, "invoice_id");
    for field in ["max_events: -1", "before_event_sequence: -1"] {
        assert!(status.message().contains(field), "{status:?}");
    }
    let wrong = ExportEventsRequest { max_events: -1, ..after(-1) };
    let refused = collect(client.export_events(&wrong, CallOption::default()).unwrap()).1.unwrap();
    let code = RpcStatusCode::INVALID_ARGUMENT;
    assert_status(Err::<(), _>(refused), code, "after_event_sequence: -1");
}

#[test]
fn a_history_longer_than_a_page_is_read_page_by_page() {
    const EVENTS: i64 = 2500;
    let server = with_events(EVENTS, Config::default());
    let client = server.client();
    for (max_events, size) in [(0, 100), (1, 1), (999, 999), (i32::MAX, 1000)] {
        let (mut all, mut request) = (Vec::new(), GetInvoiceRequest { max_events, ..of("a") });
        loop {
            let page = get(&client, &request).unwrap();
            assert_eq!(page.invoice.paid_cents, EVENTS);
            let left = EVENTS as usize - all.len();
            assert_eq!(page.events.len(), left.min(size));
            all.extend(numbers(&page.events));
            request.before_event_sequence = page.next_before_event_sequence;
            if request.before_event_sequence == 0 {
                break;
            }
        }
        assert_eq!(all, (1..=EVENTS).rev().collect::<Vec<_>>(), "{max_events}");
    }
    // Any number will do, also one that is of no event of the invoice.
    let page =
        |before| GetInvoiceRequest { max_events: 2, before_event_sequence: before, ..of("a") };
    let first = |before| numbers(&get(&client, &page(before)).unwrap().events);
    assert_eq!(
        (first(EVENTS + 9), first(3), first(2), first(1)),
        (vec![2500, 2499], vec![2, 1], vec![1], vec![])
    );
}

/// Of every kind, on both sides of zero: the sum of what they changed is what is paid.
#[test]
fn what_refunds_and_voids_changed_is_told() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(
        &client,
        [("a", 100), ("credit", -50), ("wrong", 7)].map(|(id, cents)| invoice(id, cents)),
    )
    .unwrap();
    let of_kind = |id: &str, invoice_id: &str, cents, kind: EventKind| ReconcileEvent {
        kind: kind.into(),
        ..event(id, invoice_id, cents)
    };
    use EventKind::{
        EVENT_KIND_PAYMENT as PAYMENT, EVENT_KIND_REFUND as REFUND, EVENT_KIND_VOID as VOID,
    };
    let sent = [
        of_kind("1", "a", 100, PAYMENT),
        of_kind("2", "a", 30, REFUND),
        of_kind("3", "credit", 50, REFUND),
        of_kind("4", "wrong", 0, VOID),
        of_kind("5", "credit", 20, PAYMENT),
        // These are not applied, and the ledger has none of them.
        of_kind("6", "a", 71, REFUND),
        of_kind("7", "a", 0, VOID),
        of_kind("8", "wrong", 1, PAYMENT),
    ];
    reconcile(&client, sent.clone());
    let told = |event: &Event| {
        let Event { event_id, kind, paid_change_cents, outstanding_cents, .. } = event;
        (event_id.parse::<usize>().unwrap(), kind.unwrap(), *paid_change_cents, *outstanding_cents)
    };
    let ledger = all_events(&client);
    let expected = [
        (1, PAYMENT, 100, 0),
        (2, REFUND, -30, 30),
        (3, REFUND, -50, 0),
        (4, VOID, 0, 0),
        (5, PAYMENT, 20, -20),
    ];
    assert_eq!(ledger.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(ledger.iter().zip(&sent).all(|(event, sent)| event.amount_cents == sent.amount_cents));
    for (id, paid_cents, events) in
        [("a", 70, vec![2, 1]), ("credit", -30, vec![5, 3]), ("wrong", 0, vec![4])]
    {
        let found = get(&client, &of(id)).unwrap();
        assert_eq!((found.invoice.paid_cents, numbers(&found.events)), (paid_cents, events));
        let changed: i64 = found.events.iter().map(|event| event.paid_change_cents).sum();
        assert_eq!(changed, paid_cents, "{id}");
    }
}

/// Streams that pay the same invoices at once: each event has one place in the order, in which those of a
/// stream are in theirs, and in which each outcome is what the events before it make it.
#[test]
fn events_are_in_the_order_of_application_whoever_sends_them() {
    const STREAMS: usize = 6;
    const EVENTS: usize = 400;
    let server = TestServer::start(Config::default());
    let client = server.client();
    let invoices: Vec<_> = (0..7).map(|i| invoice(&format!("inv-{i}"), 5000)).collect();
    upload(&client, invoices.clone()).unwrap();
    thread::scope(|scope| {
        for stream in 0..STREAMS {
            let client = server.client();
            let payment = move |i: usize| {
                let invoice_id = format!("inv-{}", (i * (stream + 1)) % 7);
                event(&format!("{stream}-{i:04}"), &invoice_id, (i % 30 + 1) as i64)
            };
            scope.spawn(move || reconcile(&client, (0..EVENTS).map(payment)));
        }
    });
    let ledger = all_events(&client);
    assert_eq!(numbers(&ledger), (1..=(STREAMS * EVENTS) as i64).collect::<Vec<_>>());
    let mut last = HashMap::new();
    let mut paid = HashMap::<&str, i64>::new();
    for event in &ledger {
        let (stream, number) = event.event_id.split_once('-').unwrap();
        let before = last.insert(stream, number);
        assert!(before.is_none_or(|before| before < number), "{before:?} {event:?}");
        let paid = paid.entry(&event.invoice_id).or_default();
        *paid += event.paid_change_cents;
        assert_eq!(event.outstanding_cents, 5000 - *paid, "{event:?}");
    }
    let (rows, error) =
        collect(client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap());
    assert!(error.is_none() && rows.len() == 7, "{error:?}");
    for row in rows {
        assert_eq!(row.paid_cents, paid[&row.invoice_id[..]]);
        let history = get(&client, &GetInvoiceRequest { max_events: 1000, ..of(&row.invoice_id) });
        let mut history = history.unwrap();
        assert_eq!(history.invoice.unwrap(), row);
        history.events.reverse();
        let of_it = ledger.iter().filter(|event| event.invoice_id == row.invoice_id);
        assert!(history.events.iter().eq(of_it), "{}", row.invoice_id);
    }
    assert_eq!(summary(&client).last_event_sequence, ledger.len() as i64);
}

#[test]
fn an_export_of_events_goes_on_after_every_cursor() {
    const EVENTS: i64 = 300;
    // Some rows a message, so that cursors are within and between.
    let config =
        Config { export_chunk_bytes: 4096, export_first_chunk_bytes: 4096, ..Config::default() };
    let server = with_events(EVENTS, config);
    let client = server.client();
    let whole = all_events(&client);
    assert_eq!(numbers(&whole), (1..=EVENTS).collect::<Vec<_>>());
    for cursor in 0..=EVENTS + 1 {
        let rest = events(&client, &after(cursor));
        assert!(rest == whole[(cursor.min(EVENTS)) as usize..], "{cursor}");
        let two = events(&client, &ExportEventsRequest { max_events: 2, ..after(cursor) });
        assert!(two == rest[..rest.len().min(2)], "{cursor}");
    }
}

#[test]
fn the_events_of_an_export_are_those_of_its_start() {
    const EVENTS: i64 = 50_000;
    let server = with_events(EVENTS, Config::default());
    let client = server.slow_client();
    let mut stream =
        client.export_events(&ExportEventsRequest::new(), CallOption::default()).unwrap();
    let mut got = block_on(stream.next()).unwrap().unwrap().events;
    let metrics = server.get().metrics();
    eventually("the scan is parked", || metrics.scans_parked.get() > 0);
    assert_eq!(server.get().connections_in_use(), 0);
    reconcile(&server.client(), [event("new", "a", 1)]);
    let (rest, error) = collect(stream);
    assert!(error.is_none(), "{error:?}");
    got.extend(rest.into_iter().flat_map(|batch| batch.events));
    assert_eq!(numbers(&got), (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(numbers(&events(&client, &after(EVENTS))), [EVENTS + 1]);
}

#[test]
fn a_client_that_takes_no_events_holds_a_bounded_part_and_is_ended_with_its_cursor() {
    const EVENTS: i64 = 100_000;
    let config = Config { stall_timeout_ms: 1000, ..Config::default() };
    let server = with_events(EVENTS, config);
    let client = server.slow_client();
    let mut stream =
        client.export_events(&ExportEventsRequest::new(), CallOption::default()).unwrap();
    let mut got = block_on(stream.next()).unwrap().unwrap().events;
    let metrics = server.get().metrics();
    eventually("the scan is parked", || metrics.scans_parked.get() > 0);
    // As of an export of invoices, in rows of at least 100 bytes.
    let bound = (3 * 64 * 1024 + server.config.export_memory_bytes()) / 100;
    let scanned = metrics.rows_scanned.get();
    assert!(scanned < bound as u64, "{scanned} rows were read, over {bound}");
    // Time is what this limit is about. The status is behind what gRPC holds already.
    thread::sleep(Duration::from_millis(1500));
    let (batches, error) = collect(stream);
    got.extend(batches.into_iter().flat_map(|batch| batch.events));
    let code = RpcStatusCode::DEADLINE_EXCEEDED;
    let status = assert_status(Err::<(), _>(error.unwrap()), code, "stall_timeout_ms");
    let (_, cursor) = status.message().rsplit_once("after_event_sequence=").unwrap();
    // grpcio's client drops a message that arrives together with an error.
    let (cursor, received) = (cursor.parse::<i64>().unwrap(), got.last().unwrap().event_sequence);
    assert!(cursor >= received, "{received} {status:?}");
    got.extend(events(&client, &after(received)));
    assert_eq!(numbers(&got), (1..=EVENTS).collect::<Vec<_>>());
}

#[test]
fn an_export_of_events_is_one_of_max_exports_and_gives_its_place_back() {
    let shares =
        Config { host_share_percent: 100, connection_share_percent: 100, ..Config::default() };
    let server = with_events(50_000, Config { max_exports: 1, ..shares });
    let client = server.slow_client();
    let mut held =
        client.export_events(&ExportEventsRequest::new(), CallOption::default()).unwrap();
    block_on(held.next()).unwrap().unwrap();
    let full = RpcStatusCode::RESOURCE_EXHAUSTED;
    let refused =
        collect(client.export_events(&ExportEventsRequest::new(), CallOption::default()).unwrap())
            .1;
    assert_status(Err::<(), _>(refused.unwrap()), full, "max_exports");
    let refused =
        collect(client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap()).1;
    assert_status(Err::<(), _>(refused.unwrap()), full, "max_exports");
    drop(held);
    eventually("the place is free", || {
        server.get().streams_open() == 0 && server.get().connections_in_use() == 0
    });
    assert_eq!(all_events(&client).len(), 50_000);
}
