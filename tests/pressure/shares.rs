//! No peer may take what all need: a greedy one that takes all it gets, and a polite one beside it.
//!
//! `BILLSTREAM_TEST_GREED=1000` has the greedy one in full, with 1,000 summaries, 256 uploads and 4,096
//! exports; the default is a sixteenth of that, of limits that are a sixteenth.

use std::io::{copy, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{spawn, JoinHandle};
use std::time::Duration;

use billstream::client::Stub;
use billstream::grpc::methods::GET_SUMMARY;
use billstream::proto::report::{
    BulkResult, CreateInvoiceRequest, ExportRequest, Invoice, InvoiceStatus, ListInvoicesRequest,
    ReconcileOutcome, SummaryRequest,
};
use futures::executor::block_on;
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use futures_timer::Delay;
use grpcio::{
    Channel, ChannelBuilder, ClientCStreamReceiver, ClientCStreamSender, ClientSStreamReceiver,
    EnvBuilder, RpcStatusCode, WriteFlags,
};
use socket2::{Domain, Socket, Type};

use crate::common::*;
use crate::support::*;

/// Few enough that a summary of all is done in time on a busy host.
const ROWS: u64 = 100_000;
/// As many as keep a thread for a while.
const MANY_ROWS: u64 = 1_000_000;

/// Of a thousand summaries, and of uploads and exports in proportion.
fn greed() -> usize {
    std::env::var("BILLSTREAM_TEST_GREED").map_or(62, |text| text.parse().unwrap())
}

/// Of 256, and at least as many as leave a place to others after four connections that each took all it got.
fn uploads() -> usize {
    (256 * greed()).div_ceil(1000).max(64)
}

/// A server with limits in proportion to the greed.
fn server() -> Process {
    let flag = |most: usize| (most * greed()).div_ceil(1000).to_string();
    let (exports, uploads, queued) = (flag(4096), uploads().to_string(), flag(1024));
    let limits = [
        ["--max-exports", &exports],
        ["--max-uploads", &uploads],
        ["--max-queued-unary", &queued],
        // As long as the calls themselves may take.
        ["--unary-timeout-ms", "120000"],
    ];
    Process::with_copy(&database(ROWS), limits.as_flattened())
}

/// Connections to `addr`, on two threads together.
fn channels(addr: &str, count: usize) -> Vec<Channel> {
    let env = Arc::new(EnvBuilder::new().cq_count(2).build());
    let builder = || ChannelBuilder::new(Arc::clone(&env)).use_local_subchannel_pool(true);
    (0..count).map(|_| builder().http2_bdp_probe(false).connect(addr)).collect()
}

/// Forwards connections to the server from 127.0.0.2, which is another host to it.
fn other_host(server: &str) -> String {
    let server: SocketAddr = server.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    spawn(move || {
        for client in listener.incoming() {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let host = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
            socket.bind(&SocketAddr::new(host, 0).into()).unwrap();
            socket.connect(&server.into()).unwrap();
            let (client, server) = (client.unwrap(), TcpStream::from(socket));
            pump(client.try_clone().unwrap(), server.try_clone().unwrap());
            pump(server, client);
        }
    });
    addr
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.flush();
        let _ = to.shutdown(Shutdown::Both);
    });
}

type Upload = (ClientCStreamSender<CreateInvoiceRequest>, ClientCStreamReceiver<BulkResult>);

/// A peer that has all it gets of uploads and exports, and asks for heavy summaries all the time.
struct Greedy {
    is_over: Arc<AtomicBool>,
    summaries: Option<JoinHandle<()>>,
    _uploads: Vec<Upload>,
    exports: Vec<ClientSStreamReceiver<Invoice>>,
}

impl Greedy {
    fn start(channels: &[Channel]) -> Greedy {
        let clients: Vec<_> = channels.iter().cloned().map(Stub::with_channel).collect();
        let each = |count: usize| clients.iter().cycle().take(count);
        let uploads = each(uploads()).map(open_upload).collect();
        let mut exports: Vec<_> = each((4096 * greed()).div_ceil(1000))
            .map(|client| client.export_invoices(&ExportRequest::new(), options()).unwrap())
            .collect();
        let first_rows = block_on(join_all(exports.iter_mut().map(|rows| rows.next())));
        let open = first_rows.iter().filter(|row| matches!(row, Some(Ok(_)))).count();
        println!("{open} exports of a greedy peer are open");
        let is_over = Arc::new(AtomicBool::new(false));
        let summaries = Some(heavy_summaries(channels, greed(), &is_over));
        Greedy { is_over, summaries, _uploads: uploads, exports }
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.exports.clear();
        let _ = self.summaries.take().unwrap().join();
    }
}

fn open_upload(client: &Stub) -> Upload {
    let (mut requests, result) = client.bulk_create(options()).unwrap();
    // It fails where the upload is refused.
    let _ = block_on(requests.send((invoice("greedy", 1), WriteFlags::default())));
    (requests, result)
}

/// A summary that reads every invoice.
fn heavy() -> SummaryRequest {
    SummaryRequest { issued_from: time(1), ..SummaryRequest::default() }
}

/// Keeps `count` heavy summaries under way until it is over. Returns when all have been asked for.
fn heavy_summaries(
    channels: &[Channel],
    count: usize,
    is_over: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (channels, is_over) = (channels.to_vec(), Arc::clone(is_over));
    let (asked, all_asked) = std::sync::mpsc::channel();
    let thread = spawn(move || {
        let one = |i: usize| {
            let client = grpcio::Client::new(channels[i % channels.len()].clone());
            let first = client.unary_call_async(&GET_SUMMARY, &heavy(), options()).unwrap();
            let is_over = &is_over;
            async move {
                let mut result = first.await;
                while !is_over.load(Ordering::SeqCst) {
                    if result.is_err() {
                        Delay::new(Duration::from_millis(200)).await;
                    }
                    let call = client.unary_call_async(&GET_SUMMARY, &heavy(), options());
                    result = call.unwrap().await;
                }
            }
        };
        let all: Vec<_> = (0..count).map(one).collect();
        asked.send(()).unwrap();
        block_on(join_all(all));
    });
    all_asked.recv().unwrap();
    thread
}

/// Everything that a polite peer may want, which must succeed at the first try.
fn all_works(client: &Stub, round: usize) {
    let id = format!("polite-{round}");
    assert_eq!(upload(client, [invoice(&id, 5)]).unwrap().created_count, 1);
    pay(client, &id);
    let request = ExportRequest { max_rows: 10_000, ..ExportRequest::default() };
    let (rows, error) = collect(client.export_invoices(&request, options()).unwrap());
    assert!(error.is_none() && rows.len() == 10_000, "{} rows, {error:?}", rows.len());
    let count = client.get_summary(&heavy(), options()).unwrap().invoice_count;
    assert!(count >= ROWS as i64, "{count}");
    assert!(summary(client).invoice_count >= count);
    let page = ListInvoicesRequest { page_size: 100, ..Default::default() };
    assert_eq!(client.list_invoices(&page, options()).unwrap().invoices.len(), 100);
    let large = ListInvoicesRequest { page_size: 1000, ..Default::default() };
    assert_eq!(client.list_invoices(&large, options()).unwrap().invoices.len(), 1000);
    let statuses = vec![InvoiceStatus::INVOICE_STATUS_VOID.into()];
    let filtered = ListInvoicesRequest { statuses, ..page };
    assert!(client.list_invoices(&filtered, options()).unwrap().invoices.is_empty());
}

fn pay(client: &Stub, invoice_id: &str) {
    let (mut events, mut acks) = client.reconcile(options()).unwrap();
    block_on(events.send((event(invoice_id, invoice_id, 5), WriteFlags::default()))).unwrap();
    let ack = block_on(acks.next()).unwrap().unwrap();
    assert_eq!(ack.outcome, ReconcileOutcome::RECONCILE_OUTCOME_SETTLED.into(), "{ack:?}");
    let _ = block_on(events.close());
}

/// Beside it, and after it.
fn all_works_beside(greedy_addr: &str, connections: usize, server: &Process) {
    let greedy = Greedy::start(&channels(greedy_addr, connections));
    let polite = Stub::new(&server.addr);
    (0..3).for_each(|round| all_works(&polite, round));
    drop(greedy);
    (3..5).for_each(|round| all_works(&polite, round));
}

#[test]
fn all_works_beside_a_greedy_connection() {
    let _alone = alone();
    let server = server();
    all_works_beside(&server.addr, 1, &server);
}

#[test]
fn all_works_beside_many_greedy_connections_of_the_same_host() {
    let _alone = alone();
    let server = server();
    all_works_beside(&server.addr, 4, &server);
}

#[test]
fn all_works_beside_a_greedy_host() {
    let _alone = alone();
    let server = server();
    all_works_beside(&other_host(&server.addr), 32, &server);
}

/// An export that matches nothing, and so reads every row.
fn sparse() -> ExportRequest {
    let statuses = vec![InvoiceStatus::INVOICE_STATUS_VOID.into()];
    ExportRequest { statuses, ..ExportRequest::default() }
}

fn first_row(client: &Stub) -> Option<grpcio::Result<Invoice>> {
    let request = ExportRequest { max_rows: 1, ..ExportRequest::default() };
    block_on(client.export_invoices(&request, options()).unwrap().next())
}

#[test]
fn an_export_has_its_turn_before_those_of_another_connection_are_done() {
    const EXPORTS: usize = 100;
    let _alone = alone();
    let server = Process::with_copy(&database(MANY_ROWS), &[]);
    let (greedy, polite) = (Stub::new(&server.addr), Stub::new(&server.addr));
    assert!(first_row(&polite).unwrap().is_ok());
    let done = Arc::new(AtomicUsize::new(0));
    let exports: Vec<_> =
        (0..EXPORTS).map(|_| greedy.export_invoices(&sparse(), options()).unwrap()).collect();
    // A call of its own connection that came after them was answered, so they have come.
    summary(&greedy);
    let ends = exports.into_iter().map(|mut rows| {
        let done = Arc::clone(&done);
        async move {
            let _ = rows.next().await;
            done.fetch_add(1, Ordering::SeqCst);
        }
    });
    let ends = join_all(ends.collect::<Vec<_>>());
    greedy.spawn(async move { drop(ends.await) });
    assert!(first_row(&polite).unwrap().is_ok());
    let done = done.load(Ordering::SeqCst);
    println!("{done} of {EXPORTS} exports that match nothing were done before a polite one began");
    assert!(done < EXPORTS / 4, "{done} of {EXPORTS}");
}

/// The places of exports that were cancelled while they waited for a turn are free at once.
#[test]
fn cancelled_exports_keep_nobody_out() {
    let _alone = alone();
    let flags = ["--max-exports", "8", "--export-workers", "1", "--host-share-percent", "100"];
    let flags = [&flags[..], &["--connection-share-percent", "100"]].concat();
    let server = Process::with_copy(&database(MANY_ROWS), &flags);
    let (greedy, polite) = (Stub::new(&server.addr), Stub::new(&server.addr));
    let lawful = |polite: &Stub| {
        let mut row = first_row(polite);
        // Where eight are open it is told so, and comes again.
        while let Some(Err(error)) = row {
            assert_eq!(status(Err::<(), _>(error)).code(), RpcStatusCode::RESOURCE_EXHAUSTED);
            row = first_row(polite);
        }
        assert!(row.is_some());
    };
    for _ in 0..15 {
        // They hold the only thread for a while.
        let held = [(); 2].map(|()| greedy.export_invoices(&sparse(), options()).unwrap());
        for _ in 0..20 {
            let export = greedy.export_invoices(&sparse(), options()).unwrap();
            // Answered, this says that the export has come.
            summary(&greedy);
            drop(export);
        }
        lawful(&polite);
        drop(held);
    }
}

#[test]
fn uploads_are_staged_beside_long_queries() {
    let _alone = alone();
    let flags =
        ["--unary-workers", "1", "--max-queued-unary", "1", "--upload-memory-bytes", "1024"];
    let server = Process::with_copy(&database(MANY_ROWS), &flags);
    let is_over = Arc::new(AtomicBool::new(false));
    let summaries = heavy_summaries(&channels(&server.addr, 2), 4, &is_over);
    let client = Stub::new(&server.addr);
    // Each few of them make a job of staging.
    let rows = (0..4000).map(|i| invoice(&format!("staged-{i}"), 1));
    assert_eq!(upload(&client, rows).unwrap().created_count, 4000);
    is_over.store(true, Ordering::SeqCst);
    summaries.join().unwrap();
}
