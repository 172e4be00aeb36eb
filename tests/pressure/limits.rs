//! Every limit reached on purpose. "At once, never a hang": each refused call has a deadline, and
//! its status is not that of the deadline.

use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::{
    BulkResult, CreateInvoiceRequest, ExportRequest, Invoice, ListInvoicesRequest, ReconcileAck,
    ReconcileEvent, Summary, SummaryRequest,
};
use billstream::Config;
use futures::executor::block_on;
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use grpcio::{
    CallOption, ClientCStreamReceiver, ClientCStreamSender, ClientDuplexReceiver,
    ClientDuplexSender, ClientSStreamReceiver, RpcStatus, RpcStatusCode, WriteFlags,
};

use protobuf::Message;

use crate::common::http2::{Frame, Http2, DATA, END_STREAM};
use crate::common::*;
use crate::support::*;

/// What RetryInfo is to say in these tests.
const RETRY_MS: u64 = 1234;

/// For calls that are to be refused: waiting is not an answer.
fn at_once() -> CallOption {
    CallOption::default().timeout(Duration::from_secs(20))
}

/// A refusal with when to try again.
fn assert_refused<T: std::fmt::Debug>(result: grpcio::Result<T>, text: &str) {
    let status = assert_status(result, RpcStatusCode::RESOURCE_EXHAUSTED, text);
    assert_eq!(retry_delay(&status), Duration::from_millis(RETRY_MS), "{status:?}");
}

/// An export that is under way, and stands still.
fn held_export(client: &Stub) -> ClientSStreamReceiver<Invoice> {
    let mut rows = client.export_invoices(&ExportRequest::new(), options()).unwrap();
    block_on(rows.next()).unwrap().unwrap();
    rows
}

type Upload = (ClientCStreamSender<CreateInvoiceRequest>, ClientCStreamReceiver<BulkResult>);

fn held_upload(client: &Stub, invoice_id: &str) -> Upload {
    let (mut sink, result) = client.bulk_create(options()).unwrap();
    block_on(sink.send((invoice(invoice_id, 1), WriteFlags::default()))).unwrap();
    (sink, result)
}

type Reconcile = (ClientDuplexSender<ReconcileEvent>, ClientDuplexReceiver<ReconcileAck>);

fn held_reconcile(client: &Stub) -> Reconcile {
    let (mut sink, mut acks) = client.reconcile(options()).unwrap();
    block_on(sink.send((event("e", "nothing", 1), WriteFlags::default()))).unwrap();
    block_on(acks.next()).unwrap().unwrap();
    (sink, acks)
}

/// How an export of one row ends.
async fn export_one(client: &Stub) -> grpcio::Result<()> {
    let request = ExportRequest { max_rows: 1, ..ExportRequest::default() };
    let mut rows = client.export_invoices(&request, at_once())?;
    while let Some(row) = rows.next().await {
        row?;
    }
    Ok(())
}

async fn reconcile_one(client: &Stub) -> grpcio::Result<()> {
    let (mut sink, mut acks) = client.reconcile(at_once())?;
    // A refusal shows in the acks.
    let _ = sink.send((event("e", "nothing", 1), WriteFlags::default())).await;
    let _ = sink.close().await;
    while let Some(ack) = acks.next().await {
        ack?;
    }
    Ok(())
}

fn upload_one(client: &Stub, invoice_id: &str) -> grpcio::Result<BulkResult> {
    upload(client, [invoice(invoice_id, 1)])
}

/// The limits themselves are meant here, which one client is to fill; the shares are in `shares`.
fn without_shares(config: Config) -> Config {
    Config { host_share_percent: 100, connection_share_percent: 100, ..config }
}

fn server(config: Config) -> TestServer {
    let config = Config { retry_delay_ms: RETRY_MS, ..without_shares(config) };
    TestServer::with_copy(&database(10_000), config)
}

#[test]
fn exports_past_the_limit_are_refused_until_one_ends() {
    let server = server(Config { max_exports: 2, ..Config::default() });
    let (client, other) = (server.slow_client(), server.client());
    let held = [held_export(&client), held_export(&client)];
    for result in block_on(join_all((0..100).map(|_| export_one(&other)))) {
        assert_refused(result, "max_exports of 2 are open");
    }
    let batches = other.export_invoice_batches(&ExportRequest::new(), at_once()).unwrap();
    assert_refused(Err::<(), _>(collect(batches).1.unwrap()), "max_exports of 2 are open");
    // Other rpcs have their own.
    upload_one(&other, "new").unwrap();
    drop(held);
    eventually("there is room", || block_on(export_one(&other)).is_ok());
}

#[test]
fn a_consumer_that_was_given_up_makes_room() {
    let config = Config { max_exports: 1, stall_timeout_ms: 200, ..Config::default() };
    let server = server(config);
    let (client, other) = (server.slow_client(), server.client());
    let held = held_export(&client);
    eventually("there is room", || block_on(export_one(&other)).is_ok());
    drop(held);
}

#[test]
fn uploads_past_the_limit_are_refused_until_one_ends() {
    let server = server(Config { max_uploads: 2, ..Config::default() });
    let client = server.client();
    let mut held: Vec<_> =
        ["a", "b"].iter().map(|invoice_id| held_upload(&client, invoice_id)).collect();
    eventually("both are open", || server.get().streams_open() == 2);
    for i in 0..20 {
        assert_refused(upload_one(&client, &format!("refused-{i}")), "max_uploads of 2 are open");
    }
    block_on(export_one(&client)).unwrap();
    let (mut sink, result) = held.pop().unwrap();
    let _ = block_on(sink.close());
    assert_eq!(block_on(result).unwrap().created_count, 1);
    eventually("there is room", || upload_one(&client, "c").is_ok());
    assert_eq!(summary(&client).invoice_count, 10_002);
}

#[test]
fn reconciles_past_the_limit_are_refused_until_one_ends() {
    let server = server(Config { max_reconciles: 2, ..Config::default() });
    let client = server.client();
    let mut held = vec![held_reconcile(&client), held_reconcile(&client)];
    for result in block_on(join_all((0..100).map(|_| reconcile_one(&client)))) {
        assert_refused(result, "max_reconciles of 2 are open");
    }
    let (mut sink, acks) = held.pop().unwrap();
    // The call may be over before the half-close is through, which grpcio makes an error of.
    let _ = block_on(sink.close());
    assert!(collect(acks).1.is_none());
    eventually("there is room", || block_on(reconcile_one(&client)).is_ok());
}

#[test]
fn streams_of_a_connection_past_the_limit_are_refused() {
    let server = server(Config { max_streams_per_connection: 3, ..Config::default() });
    let (client, other) = (server.slow_client(), server.client());
    let held = (held_export(&client), held_upload(&client, "a"), held_reconcile(&client));
    eventually("all are open", || server.get().streams_open() == 3);
    let text = "max_streams_per_connection of 3 are open";
    for result in block_on(join_all((0..100).map(|_| export_one(&client)))) {
        assert_refused(result, text);
    }
    assert_refused(block_on(reconcile_one(&client)), text);
    assert_refused(upload_one(&client, "b"), text);
    // Neither unary calls nor other connections are concerned.
    assert_eq!(summary(&client).invoice_count, 10_000);
    block_on(export_one(&other)).unwrap();
    drop(held);
    eventually("there is room", || block_on(export_one(&client)).is_ok());
}

/// A summary that reads every invoice: work where `summary` has none, and on a busy host seconds of it.
fn slow_summary(client: &Stub) -> grpcio::Result<Summary> {
    let request = SummaryRequest { issued_from: time(1), ..SummaryRequest::default() };
    client.get_summary(&request, options())
}

#[test]
fn unary_calls_past_the_queue_are_refused_at_once() {
    let _alone = alone();
    let config = Config {
        unary_workers: 1,
        max_queued_unary: 2,
        retry_delay_ms: RETRY_MS,
        ..Config::default()
    };
    let server = TestServer::with_copy(&database(1_000_000), without_shares(config));
    let client = server.client();
    summary(&client);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || {
                let start = Instant::now();
                (slow_summary(&client), start.elapsed())
            })
        })
        .collect();
    let (mut answered, mut slowest_refusal) = (0, Duration::ZERO);
    for call in calls {
        match call.join().unwrap() {
            (Ok(summary), _) => {
                assert_eq!(summary.invoice_count, 1_000_000);
                answered += 1;
            }
            (refused, took) => {
                assert_refused(refused, "max_queued_unary of 2 calls wait");
                slowest_refusal = slowest_refusal.max(took);
            }
        }
    }
    println!("{answered} of 20 answered, the slowest refusal took {slowest_refusal:?}");
    assert!((2..20).contains(&answered), "{answered} of 20 were answered");
    assert_eq!(slow_summary(&client).unwrap().invoice_count, 1_000_000);
}

#[test]
fn no_page_waits_for_long_queries() {
    let _alone = alone();
    let config = Config { unary_workers: 1, ..Config::default() };
    let server = TestServer::with_copy(&database(1_000_000), config);
    let (client, other) = (server.client(), server.client());
    let long: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || slow_summary(&client).unwrap().invoice_count)
        })
        .collect();
    eventually("a long query runs", || server.get().connections_in_use() > 0);
    let request = ListInvoicesRequest { page_size: 100, ..Default::default() };
    let mut pages = 0;
    while !long.iter().any(|call| call.is_finished()) {
        assert_eq!(other.list_invoices(&request, at_once()).unwrap().invoices.len(), 100);
        pages += 1;
    }
    println!("{pages} pages before the first of 3 long queries ended");
    assert!(pages > 3, "{pages} pages");
    for call in long {
        assert_eq!(call.join().unwrap(), 1_000_000);
    }
}

#[test]
fn no_page_is_refused_for_a_full_queue() {
    let config = Config { unary_workers: 1, max_queued_unary: 1, ..Config::default() };
    let server = server(config);
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    let request = ListInvoicesRequest { page_size: 100, ..Default::default() };
    std::thread::scope(|scope| {
        for caller in 0..40 {
            let (client, request) = (&clients[caller % clients.len()], &request);
            scope.spawn(move || {
                for _ in 0..50 {
                    let page = client.list_invoices(request, at_once()).unwrap();
                    assert_eq!(page.invoices.len(), 100);
                }
            });
        }
    });
}

#[test]
fn a_query_over_its_time_is_ended() {
    let config = Config { unary_timeout_ms: 10, ..Config::default() };
    let server = TestServer::with_copy(&database(1_000_000), config);
    let ended = RpcStatusCode::DEADLINE_EXCEEDED;
    assert_status(slow_summary(&server.client()), ended, "unary_timeout_ms");
    eventually("the connection is back", || server.get().connections_in_use() == 0);
}

#[test]
fn a_query_past_the_deadline_of_its_client_is_ended() {
    let server = TestServer::with_copy(&database(1_000_000), Config::default());
    let request = SummaryRequest { issued_from: time(1), ..SummaryRequest::default() };
    let options = CallOption::default().timeout(Duration::from_millis(20));
    let result = server.client().get_summary(&request, options);
    assert_eq!(status(result).code(), RpcStatusCode::DEADLINE_EXCEEDED);
    eventually("the connection is back", || server.get().connections_in_use() == 0);
}

#[test]
fn messages_over_the_limit_are_refused_by_every_rpc() {
    let limits =
        Config { max_message_bytes: 10_000, max_request_bytes: 10_000, ..Config::default() };
    let server = server(limits);
    let client = server.client();
    let customer_id = "c".repeat(10_001);
    let is_refused = |status: RpcStatus| {
        assert_eq!(status.code(), RpcStatusCode::RESOURCE_EXHAUSTED, "{status:?}");
    };
    let request = SummaryRequest { customer_id: customer_id.clone(), ..Default::default() };
    is_refused(status(client.get_summary(&request, at_once())));
    let request = ListInvoicesRequest { customer_id: customer_id.clone(), ..Default::default() };
    is_refused(status(client.list_invoices(&request, at_once())));
    let request = ExportRequest { customer_id, ..Default::default() };
    let rows = client.export_invoices(&request, at_once()).unwrap();
    is_refused(status(Err::<(), _>(collect(rows).1.unwrap())));
    let batches = client.export_invoice_batches(&request, at_once()).unwrap();
    is_refused(status(Err::<(), _>(collect(batches).1.unwrap())));
    let mut large = event("e", "nothing", 1);
    large.reference = "r".repeat(10_001);
    let (mut sink, acks) = client.reconcile(at_once()).unwrap();
    let _ = block_on(sink.send((large, WriteFlags::default())));
    is_refused(status(Err::<(), _>(collect(acks).1.unwrap())));
    eventually("the streams are closed", || server.get().streams_open() == 0);
}

#[test]
fn no_unary_call_waits_behind_exports() {
    const EXPORTS: usize = 20;
    let _alone = alone();
    let config = Config { export_workers: 1, ..Config::default() };
    let server = TestServer::with_copy(&database(1_000_000), config);
    let (client, exporter) = (server.client(), server.client());
    let idle = median(summary_times(&client));
    let mut exports: Vec<_> = (0..EXPORTS).map(|_| held_export(&exporter)).collect();
    let (stop, is_stopped) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        // All in turn, so that each is under way until it is told to stop.
        while is_stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            for rows in &mut exports {
                block_on(rows.take(100).for_each(|row| async { drop(row.unwrap()) }));
            }
        }
        exports
    });
    let times = summary_times(&client);
    drop(stop);
    assert_eq!(server.get().streams_open(), EXPORTS, "they are all under way");
    drop(reader.join().unwrap());
    let slowest = times.iter().max().copied();
    let median = median(times);
    println!("GetSummary beside {EXPORTS} exports: {median:?} at the median ({idle:?} alone), {slowest:?} at the most");
    // A busy host makes both slow.
    assert!(median < 20 * idle + Duration::from_millis(100), "{median:?}");
}

fn summary_times(client: &Stub) -> Vec<Duration> {
    let call = |_| {
        let start = Instant::now();
        summary(client);
        start.elapsed()
    };
    (0..200).map(call).collect()
}

/// Pages that nobody takes: gRPC has to keep them, and they are bounded.
#[test]
fn pages_that_wait_for_their_clients_are_bounded() {
    const CALLS: usize = 100;
    let _alone = alone();
    let config = Config { max_answer_bytes: 1 << 20, ..Config::default() };
    let server = TestServer::with_copy(&database(10_000), config);
    let polite = server.client();
    let page = ListInvoicesRequest { page_size: 1000, ..Default::default() };
    let bytes = polite.list_invoices(&page, at_once()).unwrap().compute_size() as usize;
    let mut greedy = Http2::connect_with_window(&server.addr(), 0);
    for call in 0..CALLS {
        let stream = 2 * call as u32 + 1;
        greedy.open(stream, "/billing.v1.ReportService/ListInvoices").unwrap();
        let mut message = vec![0];
        message.extend((page.compute_size() as u32).to_be_bytes());
        page.write_to_vec(&mut message).unwrap();
        greedy.send(&Frame::new(DATA, END_STREAM, stream, message)).unwrap();
    }
    let refused = || server.get().metrics().refused("max_answer_bytes") as usize;
    // It gets less than half, as its connection's share.
    eventually("the others are refused", || (CALLS - refused()) * bytes <= 1 << 20);
    println!("{} of {CALLS} pages of {bytes} bytes wait", CALLS - refused());
    assert_eq!(polite.list_invoices(&page, at_once()).unwrap().invoices.len(), 1000);
    drop(greedy);
}
