//! The client in process: `Server::local` and `Client::open`.

mod common;

use std::fs;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Instant;

use billstream::client::{Client, Code, Error};
use billstream::proto::report::{
    CreateInvoiceRequest, Event, ExportEventsRequest, ExportRequest, GetInvoiceRequest, Invoice,
    InvoiceStatus, ListInvoicesRequest, ReconcileAck, SummaryRequest,
};
use billstream::stop::{Reason, Stop};
use billstream::{Config, Server};
use futures::executor::block_on;
use grpcio::{ChannelBuilder, EnvBuilder};

use common::{database, event, eventually, invoice, TestServer, DEADLINE};

const MANY: u64 = 200_000;

fn without_listeners(dir: &Path) -> Server {
    let config = Config { db: dir.join("bills.db"), ..Config::default() };
    Server::builder(config).without_listeners().start().unwrap()
}

fn create(client: &Client, batch_id: &str, rows: &[CreateInvoiceRequest]) -> Result<i64, Error> {
    let mut upload = client.upload()?;
    rows.iter().try_for_each(|row| upload.send(row))?;
    upload.commit(batch_id).map(|result| result.created_count)
}

fn pay(client: &Client, n: i64) -> Result<Vec<ReconcileAck>, Error> {
    let (events, acks) = client.reconcile().split();
    for i in 0..n {
        events.send(event(&format!("event-{i}"), &format!("inv-{}", i % 10), i))?;
    }
    events.finish();
    acks.collect::<Result<Vec<_>, _>>().map(|acks| acks.concat())
}

fn would_create(
    client: &Client,
    rows: &[CreateInvoiceRequest],
) -> Result<(i64, bool, bool), Error> {
    let mut upload = client.upload()?;
    rows.iter().try_for_each(|row| upload.send(row))?;
    let result = upload.validate("batch")?;
    Ok((result.created_count, result.already_applied, result.validate_only))
}

fn would_pay(client: &Client, n: i64) -> Result<Vec<ReconcileAck>, Error> {
    let event = |i| event(&format!("event-{i}"), &format!("inv-{}", i % 1000), i);
    client.validate_events(&(0..n).map(event).collect::<Vec<_>>())
}

fn rows(client: &Client, request: &ExportRequest) -> Result<Vec<Invoice>, Error> {
    client.export(request).rows().collect()
}

fn ledger(client: &Client, request: &ExportEventsRequest) -> Result<Vec<Event>, Error> {
    client.export_events(request).collect::<Result<Vec<_>, _>>().map(|events| events.concat())
}

/// All that a client can be told, right and wrong, without what differs from one database to the next.
fn everything(client: &Client) -> String {
    let invoices: Vec<_> = (0..3000).map(|i| invoice(&format!("inv-{i}"), i)).collect();
    let wrong = CreateInvoiceRequest { currency: "dollars".to_owned(), ..invoice("wrong", -1) };
    let large = CreateInvoiceRequest { memo: "m".repeat(2000), ..invoice("large", 1) };
    let open = vec![InvoiceStatus::INVOICE_STATUS_OPEN.into()];
    let some = ExportRequest { statuses: open, max_rows: 50, ..Default::default() };
    let nobody = SummaryRequest { customer_id: "c".repeat(200), ..Default::default() };
    let page = ListInvoicesRequest { page_size: 7, ..Default::default() };
    let one = |id: &str| GetInvoiceRequest {
        invoice_id: id.to_owned(),
        max_events: 3,
        ..Default::default()
    };
    let wrong_cursor = ExportEventsRequest { after_event_sequence: -1, ..Default::default() };
    let no_page = ListInvoicesRequest { page_token: "no".to_owned(), ..Default::default() };
    // Where there is nothing to give too.
    let on_nothing =
        rows(client, &ExportRequest { customer_id: "c".repeat(200), ..Default::default() });
    assert_eq!(on_nothing.unwrap_err().code, Code::InvalidArgument);
    let all = (
        (create(client, "batch", &invoices), create(client, "batch", &invoices)),
        (create(client, "batch", &invoices[1..]), create(client, "", &invoices[5..6])),
        (create(client, "", &[wrong]), create(client, "", &[large])),
        (would_create(client, &invoices), would_create(client, &[invoice("new", 1)])),
        (would_pay(client, 6000), pay(client, 4000), pay(client, 20)),
        (rows(client, &ExportRequest::default()), rows(client, &some)),
        rows(client, &ExportRequest { after_sequence: -1, ..Default::default() }),
        rows(client, &ExportRequest { max_rows: -1, ..Default::default() }),
        (client.list(&page), client.list(&no_page)),
        (client.invoice(&one("inv-3")), client.invoice(&one("none")), client.invoice(&one(""))),
        (ledger(client, &ExportEventsRequest::default()), ledger(client, &wrong_cursor)),
        (client.summary(&SummaryRequest::default()), client.summary(&nobody)),
    );
    format!("{all:#?}")
}

#[test]
fn it_is_the_same_client_over_grpc_in_process_and_on_a_file() {
    let server = TestServer::start(Config::default());
    let over_grpc = everything(&Client::connect(&server.addr()));
    let dir = tempfile::tempdir().unwrap();
    let server = without_listeners(dir.path());
    let in_process = everything(&server.local());
    server.shutdown().unwrap();
    assert!(over_grpc.contains("requests[0].currency"), "{over_grpc}");
    assert_eq!(over_grpc, in_process);
    let on_a_file = everything(&Client::open(dir.path().join("other.db")).unwrap());
    assert_eq!(over_grpc, on_a_file);
}

/// The sockets of this process that listen.
fn listening() -> Vec<String> {
    let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
        let target = fs::read_link(fd.unwrap().path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
    });
    let of_this_process: Vec<String> = fds.collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")));
    let lines: Vec<String> = tables
        .into_iter()
        .flatten()
        .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let listens = |line: &&String| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The state and the inode, as in proc(5).
        fields.get(3) == Some(&"0A")
            && of_this_process.iter().any(|i| Some(&i[..]) == fields.get(9).copied())
    };
    lines.iter().filter(listens).cloned().collect()
}

/// In a process of its own, since the other tests of this one listen.
#[test]
fn no_port_is_opened() {
    let this = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(this);
    let child = child.args(["--exact", "child_without_a_port", "--ignored"]).output().unwrap();
    assert!(child.status.success(), "{child:?}");
}

#[test]
#[ignore = "a child of no_port_is_opened"]
fn child_without_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let server = without_listeners(dir.path());
    everything(&server.local());
    assert_eq!(listening(), [""; 0]);
    assert!(server.addresses().is_empty());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(listening().len(), 1);
    drop(listener);
}

#[test]
fn a_file_that_a_server_has_is_refused_with_its_address() {
    let server = TestServer::start(Config::default());
    let refused = Client::open(&server.config.db).unwrap_err().to_string();
    assert!(refused.contains(&server.addr()), "{refused}");
}

#[test]
fn a_file_is_closed_with_the_last_call_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    fs::copy(database(MANY), &db).unwrap();
    let client = Client::open(&db).unwrap();
    let mut export = client.export(&ExportRequest::default());
    export.next().unwrap().unwrap();
    let another = client.clone();
    drop((client, another));
    assert!(Client::open(&db).is_err());
    let rest = export.by_ref().map(|batch| batch.unwrap().len()).sum::<usize>();
    assert!(rest > MANY as usize / 2);
    drop(export);
    assert!(!dir.path().join("bills.db-wal").exists());
    let client = Client::open(&db).unwrap();
    assert_eq!(client.summary(&SummaryRequest::default()).unwrap().invoice_count, MANY as i64);
}

#[test]
fn a_file_is_open_for_as_long_as_there_is_an_upload() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    let mut upload = Client::open(&db).unwrap().upload().unwrap();
    upload.send(&invoice("a", 1)).unwrap();
    assert!(Client::open(&db).is_err());
    assert_eq!(upload.commit("batch").unwrap().created_count, 1);
    assert!(Client::open(&db).is_ok());
}

#[test]
fn an_export_that_is_dropped_ends_its_scan_and_gives_its_place_back() {
    let server =
        TestServer::with_copy(&database(MANY), Config { max_exports: 1, ..Config::default() });
    let client = server.get().local();
    for _ in 0..3 {
        let mut export = client.export(&ExportRequest::default());
        export.next().unwrap().unwrap();
        let refused = client.export(&ExportRequest::default()).next().unwrap().unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert!(refused.retry_delay.is_some());
        drop(export);
        eventually("the place is free", || server.get().streams_open() == 0);
    }
    let metrics = server.get().metrics();
    assert_eq!(metrics.calls_failed.get(), 6);
    assert!(metrics.rows_scanned.get() < 3 * MANY, "{}", metrics.rows_scanned.get());
}

#[test]
fn an_upload_that_is_dropped_creates_nothing() {
    let server = TestServer::start(Config::default());
    let client = server.get().local();
    let mut upload = client.upload().unwrap();
    (0..2000).for_each(|i| upload.send(&invoice(&i.to_string(), i)).unwrap());
    drop(upload);
    assert_eq!(client.summary(&SummaryRequest::default()).unwrap().invoice_count, 0);
    assert_eq!(server.get().streams_open(), 0);
}

#[test]
fn an_upload_may_be_larger_than_its_memory() {
    let server = TestServer::start(Config { upload_memory_bytes: 4096, ..Config::default() });
    let client = server.get().local();
    let rows: Vec<_> = (0..2000).map(|i| invoice(&i.to_string(), i)).collect();
    assert_eq!(create(&client, "batch", &rows), Ok(2000));
}

#[test]
fn a_call_inside_an_executor_waits_there() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let server = without_listeners(dir.path());
        assert_eq!(create(&server.local(), "", &[invoice("a", 1)]), Ok(1));
        server.shutdown().unwrap();
    });
}

/// Where an embedder's own handlers run: one that serves the server itself too.
#[test]
fn a_call_on_a_completion_queue_thread_waits_there() {
    let dir = tempfile::tempdir().unwrap();
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
    let builder = Server::builder(config).without_listeners().environment(Arc::clone(&env));
    let server = builder.start().unwrap();
    let (done, result) = mpsc::channel();
    // Never connected: a channel is what binds a task to a thread.
    let channel = ChannelBuilder::new(env).connect("127.0.0.1:0");
    let (go, told) = futures::channel::oneshot::channel();
    grpcio::Client::new(channel).spawn(async move {
        // Its first part runs on the thread that spawns it.
        told.await.unwrap();
        let created = create(&server.local(), "", &[invoice("inv-0", 1)]);
        let paid = pay(&server.local(), 1).map(|acks| acks.len());
        done.send((created, paid, rows(&server.local(), &ExportRequest::default()))).unwrap();
        // It stops on another thread.
        assert!(!server.shutdown().unwrap().is_over);
    });
    go.send(()).unwrap();
    let (created, paid, exported) = result.recv_timeout(DEADLINE).unwrap();
    assert_eq!((created, paid, exported.unwrap().len()), (Ok(1), Ok(1), 1));
    let db = dir.path().join("bills.db");
    eventually("the database is free", || Client::open(&db).is_ok());
}

#[test]
fn dropped_by_a_panic_it_stops_with_its_calls_open() {
    let dir = tempfile::tempdir().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let server = without_listeners(dir.path());
        let mut upload = server.local().upload().unwrap();
        upload.send(&invoice("a", 1)).unwrap();
        let (_events, _acks) = server.local().reconcile().split();
        panic!("this is to panic");
    }));
    assert!(panicked.is_err());
    let client = Client::open(dir.path().join("bills.db")).unwrap();
    assert_eq!(client.summary(&SummaryRequest::default()).unwrap().invoice_count, 0);
}

#[test]
fn after_a_stop_calls_are_unavailable_and_those_that_wait_end() {
    let server = TestServer::with_copy(&database(MANY), Config::default());
    let client = server.get().local();
    let mut export = client.export(&ExportRequest::default());
    export.next().unwrap().unwrap();
    let mut upload = client.upload().unwrap();
    upload.send(&invoice("a", 1)).unwrap();
    let (events, mut acks) = client.reconcile().split();
    events.send(event("e", "inv-00000001", 1)).unwrap();
    acks.next().unwrap().unwrap();
    let (began, waits) = mpsc::channel();
    let waiting = thread::spawn(move || {
        began.send(()).unwrap();
        let ends = acks.next().unwrap().unwrap_err();
        (ends, Instant::now())
    });
    waits.recv().unwrap();
    let start = Instant::now();
    let mut server = server;
    server.stop();
    assert!(start.elapsed() < DEADLINE / 4, "{:?}", start.elapsed());
    let (ends, _) = waiting.join().unwrap();
    let unavailable = |error: Error| {
        assert_eq!(error.code, Code::Unavailable, "{error}");
        assert!(error.message.contains("shutting down"), "{error}");
    };
    unavailable(ends);
    unavailable(export.find_map(Result::err).unwrap());
    unavailable(upload.commit("batch").unwrap_err());
    unavailable(client.summary(&SummaryRequest::default()).unwrap_err());
    unavailable(client.list(&ListInvoicesRequest::default()).unwrap_err());
    unavailable(create(&client, "", &[invoice("b", 1)]).unwrap_err());
    unavailable(pay(&client, 1).unwrap_err());
    drop(events);
}

#[test]
fn a_stopped_client_ends_its_calls() {
    let server = TestServer::start(Config::default());
    let stop = Stop::default();
    let client = server.get().local().with_stop(&stop);
    let (events, mut acks) = client.reconcile().split();
    let waiting = thread::spawn(move || acks.next().unwrap().unwrap_err().code);
    stop.stop(Reason::ClientGone);
    assert_eq!(waiting.join().unwrap(), Code::Cancelled);
    assert_eq!(client.summary(&SummaryRequest::default()).unwrap_err().code, Code::Cancelled);
    drop(events);
    assert_eq!(server.get().streams_open(), 0);
}

#[test]
fn a_query_past_the_clients_time_is_ended() {
    let server = TestServer::with_copy(&database(MANY), Config::default());
    let client = server.get().local().with_timeout(std::time::Duration::ZERO);
    let dated = SummaryRequest { issued_from: common::time(1), ..Default::default() };
    let error = client.summary(&dated).unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded, "{error}");
}

/// A connection that was opened last and closed at once used to be closed behind the writer's back.
#[test]
fn a_file_that_is_closed_at_once_has_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    for i in 0..100 {
        let client = Client::open(&db).unwrap();
        if i % 2 == 0 {
            client.summary(&SummaryRequest::default()).unwrap();
        }
        drop(client);
        assert!(!dir.path().join("bills.db-wal").exists(), "after {i} times");
    }
}

#[test]
fn a_link_to_nothing_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    std::os::unix::fs::symlink("/nowhere/bills.db", &db).unwrap();
    let refused = Client::open(&db).unwrap_err().to_string();
    assert!(refused.contains("a link to nothing"), "{refused}");
    assert!(db.is_symlink());
}
