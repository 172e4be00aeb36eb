//! `billstream::client::Client`: what it promises beyond the calls of the service.

mod common;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use billstream::client::{Client, Code, Error, EventExport, Export};
use billstream::proto::report::{
    CreateInvoiceRequest, ExportEventsRequest, ExportRequest, GetInvoiceRequest,
    ListInvoicesRequest, ReconcileOutcome, SummaryRequest,
};
use billstream::stop::{Reason, Stop};
use billstream::{Config, Server};
use futures::executor::block_on;

use common::{database, event, eventually, invoice, TestServer, DEADLINE};

/// More rows than the windows of gRPC and the queues of an export hold.
const MANY: u64 = 200_000;

fn client(server: &TestServer) -> Client {
    Client::connect(&server.addr())
}

/// A server that does not work for a client that does not take.
fn with_many() -> TestServer {
    TestServer::with_copy(&database(MANY), Config::default())
}

fn count(client: &Client) -> i64 {
    client.summary(&SummaryRequest::default()).unwrap().invoice_count
}

fn create(client: &Client, batch_id: &str, rows: &[CreateInvoiceRequest]) -> Result<i64, Error> {
    let mut upload = client.upload()?;
    rows.iter().try_for_each(|row| upload.send(row))?;
    let result = upload.commit(batch_id)?;
    assert_eq!(result.batch_id, batch_id);
    Ok(if result.already_applied { 0 } else { result.created_count })
}

fn sequences(export: Export) -> Vec<i64> {
    let batches = export.map(Result::unwrap);
    batches.flat_map(|batch| batch.iter().map(|row| row.sequence).collect::<Vec<_>>()).collect()
}

/// Stops the server, and starts another one on its port and database.
fn restart(server: &mut TestServer) {
    let listen = server.addr();
    server.stop();
    server.server =
        Some(Server::start(Config { listen: vec![listen], ..server.config.clone() }).unwrap());
}

#[test]
fn an_export_goes_on_over_a_restart_of_the_server() {
    let mut server = with_many();
    let tries = Arc::new(Mutex::new(Vec::new()));
    let tried = Arc::clone(&tries);
    let client = client(&server)
        .with_retries(DEADLINE)
        .on_retry(move |error, _| tried.lock().unwrap().push(error.code));
    let mut export = client.export(&ExportRequest::default());
    let first = export.next().unwrap().unwrap();
    assert_eq!(export.cursor(), first.last_sequence());
    restart(&mut server);
    // It is not of the set, which is that of the start.
    assert_eq!(create(&client, "later", &[invoice("later", 1)]), Ok(1));
    let mut all: Vec<_> = first.iter().map(|row| row.sequence).collect();
    all.extend(sequences(export));
    assert!(all.into_iter().eq(1..=MANY as i64));
    assert_eq!(tries.lock().unwrap().first(), Some(&Code::Unavailable));
    assert_eq!(count(&client), MANY as i64 + 1);
}

/// Pays the invoice `one` a cent at a time.
fn pay(client: &Client, ids: std::ops::RangeInclusive<i64>) {
    let (events, acks) = client.reconcile().split();
    thread::scope(|scope| {
        scope.spawn(|| acks.for_each(|acks| drop(acks.unwrap())));
        ids.for_each(|i| events.send(event(&format!("event-{i}"), "one", 1)).unwrap());
        events.finish();
    });
}

fn event_sequences(export: EventExport) -> Vec<i64> {
    let events = export.flat_map(Result::unwrap);
    events.map(|event| event.event_sequence).collect()
}

/// The same of events, of which those are not in the set that came after its start.
#[test]
fn an_export_of_events_goes_on_over_a_restart_of_the_server() {
    const EVENTS: i64 = 60_000;
    let mut server = TestServer::start(Config::default());
    let client = client(&server).with_retries(DEADLINE);
    assert_eq!(create(&client, "one", &[invoice("one", 1)]), Ok(1));
    pay(&client, 1..=EVENTS);
    let mut export = client.export_events(&ExportEventsRequest::default());
    let first = export.next().unwrap().unwrap();
    assert_eq!(export.cursor(), first.last().unwrap().event_sequence);
    restart(&mut server);
    pay(&client, EVENTS + 1..=EVENTS + 10);
    let mut all: Vec<_> = first.iter().map(|event| event.event_sequence).collect();
    all.extend(event_sequences(export));
    assert!(all.into_iter().eq(1..=EVENTS));
    let some = ExportEventsRequest {
        after_event_sequence: EVENTS - 5,
        max_events: 7,
        ..Default::default()
    };
    assert!(event_sequences(client.export_events(&some)).into_iter().eq(EVENTS - 4..=EVENTS + 2));
    let none = GetInvoiceRequest { invoice_id: "none".to_owned(), ..Default::default() };
    assert_eq!(client.invoice(&none).unwrap_err().code, Code::NotFound);
}

#[test]
fn an_export_gives_as_many_rows_as_were_asked_for() {
    let server = with_many();
    let client = client(&server);
    let request = ExportRequest { after_sequence: 10, max_rows: 5000, ..ExportRequest::default() };
    let rows: Vec<_> = client.export(&request).rows().map(Result::unwrap).collect();
    assert!(rows.iter().map(|row| row.sequence).eq(11..=5010));
    let page = ListInvoicesRequest { page_size: 30, ..ListInvoicesRequest::default() };
    assert_eq!(rows[..20], client.list(&page).unwrap().invoices[10..]);
    // It came to its end, and was not cancelled.
    let metrics = server.get().metrics();
    eventually("all calls are counted", || metrics.calls_ok.get() == 3);
    assert_eq!(metrics.calls_failed.get(), 0);
}

#[test]
fn the_scan_of_an_export_ends_when_it_is_dropped() {
    let server = with_many();
    let client = client(&server);
    let mut export = client.export(&ExportRequest::default());
    export.next().unwrap().unwrap();
    drop(export);
    let metrics = server.get().metrics();
    eventually("the call has failed", || metrics.calls_failed.get() == 1);
    assert!(metrics.rows_scanned.get() < MANY, "{}", metrics.rows_scanned.get());
    assert_eq!(count(&client), MANY as i64);
}

#[test]
fn an_upload_without_its_commit_creates_nothing() {
    let server = TestServer::start(Config::default());
    let client = client(&server);
    let mut upload = client.upload().unwrap();
    (0..2000).for_each(|i| upload.send(&invoice(&i.to_string(), i)).unwrap());
    drop(upload);
    eventually("the call has failed", || server.get().metrics().calls_failed.get() == 1);
    assert_eq!(count(&client), 0);
    let rows: Vec<_> = (0..2000).map(|i| invoice(&i.to_string(), i)).collect();
    assert_eq!(create(&client, "batch", &rows), Ok(2000));
}

#[test]
fn a_commit_is_applied_once() {
    let server = TestServer::start(Config::default());
    let client = client(&server);
    let rows: Vec<_> = (0..1000).map(|i| invoice(&format!("inv-{i}"), i)).collect();
    assert_eq!(create(&client, "batch", &rows), Ok(1000));
    assert_eq!(create(&client, "batch", &rows), Ok(0));
    let other = create(&client, "batch", &rows[..999]).unwrap_err();
    assert_eq!(other.code, Code::Aborted);
    let taken = create(&client, "other", &rows[..1]).unwrap_err();
    assert_eq!(taken.code, Code::AlreadyExists);
    assert!(taken.message.contains("\"inv-0\""), "{taken}");
    assert_eq!(count(&client), 1000);
}

#[test]
fn a_refused_row_is_named_while_others_are_sent() {
    let server = TestServer::start(Config::default());
    let client = client(&server);
    let wrong = CreateInvoiceRequest { currency: "usd".to_owned(), ..invoice("wrong", 1) };
    let mut upload = client.upload().unwrap();
    upload.send(&invoice("right", 1)).unwrap();
    upload.send(&wrong).unwrap();
    let rows = std::iter::repeat_with(|| upload.send(&invoice("right", 1)));
    let refused = rows.take_while(Result::is_ok).count();
    assert!(refused >= 510);
    assert_eq!(upload.send(&wrong).unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(upload.commit("").unwrap_err().code, Code::FailedPrecondition);
    let error = create(&client, "", &[invoice("right", 1), wrong]).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.violations[0].field, "requests[1].currency");
    assert!(!error.violations[0].description.is_empty());
    assert_eq!(count(&client), 0);
}

#[test]
fn a_full_server_says_how_long_to_wait_and_is_asked_again() {
    let config = Config { max_exports: 1, host_share_percent: 100, ..Config::default() };
    let config = Config { connection_share_percent: 100, ..config };
    let server = TestServer::with_copy(&database(MANY), config);
    let client = client(&server);
    let mut held = client.export(&ExportRequest::default());
    held.next().unwrap().unwrap();
    let all = ExportRequest { max_rows: 1, ..ExportRequest::default() };
    let full = client.clone().with_retries(Duration::ZERO).export(&all).next().unwrap();
    let full = full.unwrap_err();
    assert_eq!(full.code, Code::ResourceExhausted, "{full}");
    let delay = full.retry_delay.expect("a delay");
    // The first makes room when the second is refused.
    let held = Mutex::new(Some(held));
    let waited = Arc::new(Mutex::new(Duration::ZERO));
    let told = Arc::clone(&waited);
    let patient = client.with_retries(DEADLINE).on_retry(move |_, delay| {
        held.lock().unwrap().take();
        *told.lock().unwrap() += delay;
    });
    assert_eq!(sequences(patient.export(&all)), [1]);
    assert!(*waited.lock().unwrap() >= delay);
}

#[test]
fn payments_and_acknowledgements_are_of_two_threads() {
    const EVENTS: usize = 30_000;
    let server = TestServer::start(Config::default());
    let client = client(&server);
    create(&client, "", &[invoice("inv", EVENTS as i64)]).unwrap();
    let (events, acks) = client.reconcile().split();
    let sender = thread::spawn(move || {
        let mut payments = (0..EVENTS).map(|i| event(&format!("e{i}"), "inv", 1));
        payments.try_for_each(|payment| events.send(payment))
    });
    let acks: Vec<_> = acks.flat_map(Result::unwrap).collect();
    sender.join().unwrap().unwrap();
    assert_eq!(acks.len(), EVENTS);
    for (i, ack) in acks.iter().enumerate() {
        assert_eq!(
            (&ack.event_id[1..], ack.outstanding_cents),
            (&i.to_string()[..], (EVENTS - i - 1) as i64)
        );
    }
    let last = acks.last().unwrap().outcome.enum_value_or_default();
    assert_eq!(last, ReconcileOutcome::RECONCILE_OUTCOME_SETTLED);
}

#[test]
fn a_reconciliation_goes_on_over_a_restart_of_the_server() {
    let mut server = TestServer::start(Config::default());
    let client = client(&server).with_retries(DEADLINE);
    create(&client, "", &[invoice("inv", 100)]).unwrap();
    let mut reconcile = client.reconcile();
    for i in 0..3 {
        reconcile.events.send(event(&format!("e{i}"), "inv", 10)).unwrap();
        let acks = reconcile.acks.next().unwrap().unwrap();
        assert_eq!((&acks[0].event_id[1..], acks.len()), (&i.to_string()[..], 1));
        restart(&mut server);
    }
    reconcile.events.finish();
    assert!(reconcile.acks.next().is_none());
    assert_eq!(client.summary(&SummaryRequest::default()).unwrap().totals[0].paid_cents, 30);
}

#[test]
fn whoever_sends_is_told_that_nobody_takes() {
    let server = TestServer::start(Config::default());
    let (events, acks) = client(&server).reconcile().split();
    drop(acks);
    let gone = events.send(event("e", "inv", 1)).unwrap_err();
    assert_eq!(gone.code, Code::Cancelled);
    let nobody = Client::connect("127.0.0.1:1").with_retries(Duration::ZERO);
    let (events, mut acks) = nobody.reconcile().split();
    events.send(event("e", "inv", 1)).unwrap();
    let lost = acks.next().unwrap().unwrap_err();
    assert_eq!(lost.code, Code::Unavailable);
    assert_eq!(events.send(event("e", "inv", 1)), Err(lost));
}

#[test]
fn all_calls_may_be_made_inside_an_executor() {
    let server = TestServer::start(Config::default());
    let client = client(&server);
    block_on(async {
        assert_eq!(create(&client, "", &[invoice("inv", 5)]), Ok(1));
        assert_eq!(sequences(client.export(&ExportRequest::default())), [1]);
        let (events, mut acks) = client.reconcile().split();
        events.send(event("e", "inv", 5)).unwrap();
        events.finish();
        assert_eq!(acks.next().unwrap().unwrap().len(), 1);
        assert!(acks.next().is_none());
        assert_eq!(count(&client), 1);
    });
}

#[test]
fn threads_may_share_a_client() {
    let server = with_many();
    let client = client(&server);
    thread::scope(|scope| {
        for thread in 0..4 {
            let client = &client;
            scope.spawn(move || {
                let id = format!("t{thread}");
                assert_eq!(create(client, &id, &[invoice(&id, 1)]), Ok(1));
                let after = MANY as i64 - 10_000;
                let request = ExportRequest { after_sequence: after, ..ExportRequest::default() };
                assert!(sequences(client.export(&request)).len() > 10_000);
            });
        }
    });
    assert_eq!(count(&client), MANY as i64 + 4);
}

#[test]
fn a_stopped_client_ends_what_waits_and_begins_nothing() {
    let server = TestServer::start(Config::default());
    let stop = Stop::default();
    let client = client(&server).with_stop(&stop);
    let (events, mut acks) = client.reconcile().split();
    create(&client, "", &[invoice("inv", 1)]).unwrap();
    events.send(event("e", "inv", 1)).unwrap();
    acks.next().unwrap().unwrap();
    // It waits for an event that does not come.
    let waiting = thread::spawn(move || acks.next().unwrap().unwrap_err().code);
    let mut upload = client.upload().unwrap();
    upload.send(&invoice("late", 1)).unwrap();
    stop.stop(Reason::ClientGone);
    assert_eq!(waiting.join().unwrap(), Code::Cancelled);
    assert_eq!(upload.commit("").unwrap_err().code, Code::Cancelled);
    let code = |error: Error| error.code;
    assert_eq!(client.summary(&SummaryRequest::default()).map_err(code), Err(Code::Cancelled));
    let export = client.export(&ExportRequest::default()).next().unwrap();
    assert_eq!(export.map_err(code).err(), Some(Code::Cancelled));
    assert_eq!(events.send(event("e", "inv", 1)).map_err(code), Err(Code::Cancelled));
    assert_eq!(count(&self::client(&server)), 1);
}

#[test]
fn who_does_not_answer_is_waited_for_as_long_as_it_is_said() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let client = Client::connect(&addr).with_timeout(Duration::from_millis(200));
    let late = client.summary(&SummaryRequest::default()).unwrap_err();
    assert_eq!(late.code, Code::DeadlineExceeded, "{late}");
    let nobody = Client::connect("127.0.0.1:1").with_retries(Duration::ZERO);
    let lost = nobody.list(&ListInvoicesRequest::default()).unwrap_err();
    assert_eq!(lost.code, Code::Unavailable);
    assert!(lost.message.starts_with("no server answers at 127.0.0.1:1 ("), "{lost}");
}

#[test]
fn a_time_without_end_is_one() {
    let server = TestServer::start(Config::default());
    for client in [client(&server), server.get().local()] {
        assert_eq!(count(&client.with_timeout(Duration::MAX)), 0);
    }
}
