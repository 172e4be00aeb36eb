//! `validate_only`: what the books would answer, and nothing of it stays.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::thread;

use billstream::client::{Client, Code, Error};
use billstream::grpc::methods::{BULK_CREATE_BATCHES, RECONCILE_BATCHES};
use billstream::proto::report::{
    BulkResult, CreateInvoiceRequest, EventKind, ReconcileAck, ReconcileEvent, ReconcileEventBatch,
    ReconcileOutcome, SummaryRequest,
};
use billstream::server::check;
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{
    CallOption, ClientStreamingSink, DuplexSink, EnvBuilder, RequestStream, RpcContext,
    ServerBuilder, ServerCredentials, ServiceBuilder, WriteFlags,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ReconcileOutcome::*;

use crate::common::*;

/// Every row of every table, as any program reads it.
fn books(server: &TestServer) -> Vec<String> {
    let sql = server.sql();
    let mut tables = sql.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names = tables.query_map([], |row| row.get(0)).unwrap();
    let names: Vec<String> = names.collect::<Result<_, _>>().unwrap();
    assert!(names.len() > 4, "{names:?}");
    let mut rows = Vec::new();
    for name in names {
        let mut all = sql.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns = all.column_count();
        let mut found = all.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let row: Vec<_> = (0..columns).map(|i| row.get_ref(i).unwrap()).collect();
            rows.push(format!("{name} {row:?}"));
        }
    }
    rows
}

fn uploaded(
    client: &Client,
    rows: &[CreateInvoiceRequest],
    batch_id: &str,
    is_trial: bool,
) -> Result<BulkResult, Error> {
    let mut upload = client.upload()?;
    rows.iter().try_for_each(|row| upload.send(row))?;
    match is_trial {
        true => upload.validate(batch_id),
        false => upload.commit(batch_id),
    }
}

fn applied(client: &Client, events: &[ReconcileEvent]) -> Vec<ReconcileAck> {
    let (sender, acks) = client.reconcile().split();
    thread::scope(|scope| {
        scope.spawn(move || events.iter().for_each(|event| sender.send(event.clone()).unwrap()));
        acks.flat_map(Result::unwrap).collect()
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// Invoices by number with their amounts, and the number of a batch.
    Upload(Vec<(u8, i64)>, u8),
    /// Events by number, with the number of their invoice, their amount and kind.
    Events(Vec<(u8, u8, i64, EventKind)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let invoice = (0..9u8, prop_oneof![4 => 1..300i64, 2 => -300..0i64, 1 => Just(0)]);
    let upload = (prop::collection::vec(invoice, 0..4), 0..4u8);
    let kind = prop_oneof![
        4 => Just(EventKind::EVENT_KIND_UNSPECIFIED),
        2 => Just(EventKind::EVENT_KIND_REFUND),
        1 => Just(EventKind::EVENT_KIND_VOID),
    ];
    let event = (0..20u8, 0..9u8, prop_oneof![9 => 1..200i64, 1 => Just(0)], kind);
    let events = prop::collection::vec(event, 0..12);
    let upload = upload.prop_map(|(invoices, batch)| Step::Upload(invoices, batch));
    prop::collection::vec(prop_oneof![upload, events.prop_map(Step::Events)], 1..8)
}

/// Takes a step as a trial and then for good; both answers, and the books between them.
fn step(
    (server, client): (&TestServer, &Client),
    case: usize,
    step: &Step,
) -> Result<(), TestCaseError> {
    let before = books(server);
    match step {
        Step::Upload(invoices, batch) => {
            let name = |id: u8| if id == 0 { String::new() } else { format!("{case}-{id}") };
            let rows: Vec<_> =
                invoices.iter().map(|&(id, cents)| invoice(&name(id), cents)).collect();
            let trial = uploaded(client, &rows, &name(*batch), true);
            prop_assert_eq!(books(server), before);
            let expected = uploaded(client, &rows, &name(*batch), false);
            let expected = expected.map(|booked| BulkResult { validate_only: true, ..booked });
            prop_assert_eq!(trial, expected);
        }
        Step::Events(events) => {
            let events = events.iter().map(|&(id, of, cents, kind)| ReconcileEvent {
                kind: kind.into(),
                ..event(&format!("{case}-{id}"), &format!("{case}-{of}"), cents)
            });
            let events: Vec<_> = events.collect();
            let trial = client.validate_events(&events).unwrap();
            prop_assert_eq!(books(server), before);
            prop_assert_eq!(trial, applied(client, &events));
        }
    }
    Ok(())
}

#[test]
fn a_trial_says_what_is_booked_next_and_changes_no_row() {
    let server = TestServer::start(Config::default());
    let clients = [Client::connect(&server.addr()), server.get().local()];
    let case = AtomicI64::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let result = runner.run(&steps(), |steps| {
        let case = case.fetch_add(1, Ordering::SeqCst) as usize;
        steps.iter().try_for_each(|one| step((&server, &clients[case % 2]), case, one))
    });
    result.unwrap();
    let metrics = server.get().metrics();
    let rows = clients[0].summary(&SummaryRequest::default()).unwrap().invoice_count;
    assert_eq!(metrics.invoices_created.get(), rows as u64);
}

/// The acknowledgements of each batch of one stream.
fn on_one_stream(
    server: &TestServer,
    batches: Vec<(bool, Vec<ReconcileEvent>)>,
) -> Vec<Vec<ReconcileAck>> {
    let client = server.client();
    let (mut sink, acks) = client.reconcile_batches(CallOption::default()).unwrap();
    let sender = thread::spawn(move || {
        block_on(async {
            for (validate_only, events) in batches {
                let batch = ReconcileEventBatch { events, validate_only, ..Default::default() };
                sink.send((batch, WriteFlags::default().buffer_hint(true))).await.unwrap();
            }
            half_close(&mut sink).await;
        })
    });
    let (acks, error) = collect(acks);
    sender.join().unwrap();
    assert!(error.is_none(), "{error:?}");
    acks.into_iter().map(|batch| batch.acks).collect()
}

/// Batches of both kinds come together, and a trial is whole, whatever a commit may have.
#[test]
fn each_batch_of_a_stream_is_booked_or_not_as_it_says() {
    let server = TestServer::start(Config { reconcile_batch_events: 100, ..Config::default() });
    let client = Client::connect(&server.addr());
    uploaded(&client, &[invoice("a", 5000)], "", false).unwrap();
    let pay = |name: &str, count: i64, cents: i64| -> Vec<ReconcileEvent> {
        let reference = "r".repeat(100);
        let one = |i| ReconcileEvent {
            reference: reference.clone(),
            ..event(&format!("{name}{i}"), "a", cents)
        };
        (0..count).map(one).collect()
    };
    let acks = on_one_stream(
        &server,
        vec![
            (false, pay("first", 2, 200)),
            (true, pay("trial", 4096, 1)),
            (true, Vec::new()),
            (true, pay("first", 1, 200)),
            (false, pay("second", 150, 1)),
            (true, pay("trial", 1, 4450)),
            (false, pay("trial", 1, 1)),
        ],
    );
    let last: Vec<_> =
        acks.iter().map(|acks| acks.last().map(|ack| ack.outstanding_cents)).collect();
    let expected = [Some(4600), Some(504), None, Some(4800), Some(4450), Some(0), Some(4449)];
    assert_eq!(last, expected);
    assert!(acks[3][0].duplicate);
    assert_eq!(acks[5][0].outcome, RECONCILE_OUTCOME_SETTLED.into());
    assert_eq!(server.get().metrics().events_acknowledged.get(), 2 + 150 + 1);
    let summary = client.summary(&SummaryRequest::default()).unwrap();
    assert_eq!((summary.totals[0].paid_cents, summary.last_event_sequence), (551, 153));
}

/// In whatever commits the others are.
#[test]
fn trials_beside_others_leave_nothing() {
    const ROUNDS: i64 = 60;
    let server = TestServer::start(Config::default());
    let client = Client::connect(&server.addr());
    uploaded(&client, &[invoice("paid", 1000)], "", false).unwrap();
    let id = |who: &str, i: i64| format!("{who}-{i}");
    thread::scope(|scope| {
        for who in ["a", "b"] {
            let (client, id) = (&client, &id);
            scope.spawn(move || {
                for i in 0..ROUNDS {
                    uploaded(client, &[invoice(&id(who, i), 7)], &id(who, i), false).unwrap();
                    applied(client, &[event(&id(who, i), "paid", 1)]);
                }
            });
            scope.spawn(move || {
                for i in 0..ROUNDS {
                    let rows = [invoice(&id("trial", i), 5), invoice("", 5)];
                    let trial = uploaded(client, &rows, &id("trial", 0), true).unwrap();
                    assert_eq!(trial.totals[0].total_cents, 10);
                    let taken = uploaded(client, &[invoice("paid", 5)], "", true).unwrap_err();
                    assert_eq!(taken.code, Code::AlreadyExists);
                    let acks = client.validate_events(&[event("trial", "paid", 1)]).unwrap();
                    assert_eq!(acks[0].outcome, RECONCILE_OUTCOME_PARTIAL.into());
                }
            });
        }
    });
    let summary = client.summary(&SummaryRequest::default()).unwrap();
    let all = 2 * ROUNDS;
    assert_eq!((summary.last_sequence, summary.last_event_sequence), (1 + all, all));
    assert_eq!(
        (summary.totals[0].total_cents, summary.totals[0].paid_cents),
        (1000 + 7 * all, all)
    );
    assert!(check(&server.config).unwrap().faults.is_empty());
}

/// A group of events that is more than a message takes: only where it makes a difference is it refused.
#[test]
fn what_cannot_be_judged_together_is_said() {
    let server = TestServer::start(Config::default());
    let client = server.get().local();
    uploaded(&client, &[invoice("a", 10_000)], "", false).unwrap();
    let pay = |of: &str| (0..5000).map(|i| event(&i.to_string(), of, 1)).collect::<Vec<_>>();
    let acks = client.validate_events(&pay("nobody's")).unwrap();
    assert!(acks.iter().all(|ack| ack.outcome == RECONCILE_OUTCOME_UNKNOWN_INVOICE.into()));
    let error = client.validate_events(&pay("a")).unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition, "{error:?}");
    assert!(error.message.contains("\"0\" are more than one message takes"), "{error:?}");
}

/// A server of before `validate_only`, which counts what it would book.
fn old_server() -> (grpcio::Server, String, Arc<AtomicI64>) {
    let booked = Arc::new(AtomicI64::new(0));
    let (commits, events) = (Arc::clone(&booked), Arc::clone(&booked));
    let bulk = move |ctx: RpcContext<'_>,
                     mut requests: RequestStream<_>,
                     sink: ClientStreamingSink<BulkResult>| {
        let commits = Arc::clone(&commits);
        ctx.spawn(async move {
            while let Some(Ok(batch)) = requests.next().await {
                let batch: billstream::proto::report::CreateInvoiceBatch = batch;
                let are_commits = batch.requests.iter().filter(|row| row.commit.is_some());
                commits.fetch_add(are_commits.count() as i64, Ordering::SeqCst);
            }
            let _ = sink.success(BulkResult::default()).await;
        });
    };
    let reconcile = move |ctx: RpcContext<'_>,
                          mut batches: RequestStream<ReconcileEventBatch>,
                          mut sink: DuplexSink<_>| {
        let events = Arc::clone(&events);
        ctx.spawn(async move {
            while let Some(Ok(batch)) = batches.next().await {
                events.fetch_add(batch.events.len() as i64, Ordering::SeqCst);
            }
            let _ = sink.close().await;
        });
    };
    let service = ServiceBuilder::new()
        .add_client_streaming_handler(&BULK_CREATE_BATCHES, bulk)
        .add_duplex_streaming_handler(&RECONCILE_BATCHES, reconcile)
        .build();
    let environment = Arc::new(EnvBuilder::new().cq_count(1).build());
    let mut server = ServerBuilder::new(environment).register_service(service).build().unwrap();
    let port = server.add_listening_port("127.0.0.1:0", ServerCredentials::insecure()).unwrap();
    server.start();
    (server, format!("127.0.0.1:{port}"), booked)
}

#[test]
fn an_older_server_is_not_asked_to_do_what_it_would_book() {
    let (_server, addr, booked) = old_server();
    let client = Client::connect(&addr);
    let refused = [
        uploaded(&client, &[invoice("a", 1)], "batch", true).map(drop),
        client.validate_events(&[event("e", "a", 1)]).map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(error.code, Code::FailedPrecondition, "{error:?}");
        assert!(error.message.contains("can only book"), "{error:?}");
    }
    assert_eq!(booked.load(Ordering::SeqCst), 0);
    // It does book what it is asked to.
    uploaded(&client, &[invoice("a", 1)], "batch", false).unwrap();
    assert_eq!(booked.load(Ordering::SeqCst), 1);
}
