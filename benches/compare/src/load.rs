//! The ways to load a server. Each drives any server alike, over the neutral client, on one thread.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use prost::Message;
use prost_types::Timestamp;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{append, framed, Call, Connection, Failure, Guard, Result, Tally};
use crate::proto::{
    BulkCommit, BulkResult, CreateInvoiceRequest, ExportRequest, ListInvoicesRequest,
    ListInvoicesResponse, ReconcileEvent, SummaryRequest,
};

/// Callers share this many connections at the most, as those of one process would.
const SHARED_CONNECTIONS: usize = 8;
/// How long a stalled export may take to give its first row.
const FIRST_ROW: Duration = Duration::from_secs(2);

/// What a load did.
pub struct Outcome {
    /// Rows, calls, uploads or acknowledgements.
    pub operations: u64,
    pub seconds: f64,
    /// Of calls, uploads, acknowledgements, or the first rows of exports, in nanoseconds.
    pub latency: Histogram<u64>,
    pub tally: Tally,
}

impl Default for Outcome {
    fn default() -> Outcome {
        // OK because three digits are in the range that hdrhistogram takes.
        let latency = Histogram::new(3).expect("a histogram of three digits");
        Outcome { operations: 0, seconds: 0.0, latency, tally: Tally::default() }
    }
}

impl Outcome {
    fn record(&mut self, since: Instant) {
        // OK because a histogram that grows has room for every value.
        self.latency.record(since.elapsed().as_nanos() as u64).expect("a histogram grows");
    }

    fn add(&mut self, other: Outcome) {
        self.operations += other.operations;
        self.latency += other.latency;
        self.tally.add(other.tally);
    }

    pub fn lasted(mut self, since: Instant) -> Outcome {
        self.seconds = since.elapsed().as_secs_f64();
        self
    }
}

/// Runs a load on a thread of its own runtime.
pub fn run<T>(load: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // OK because without an epoll descriptor nothing can be measured.
    runtime.expect("a runtime starts").block_on(load)
}

/// A unary call to make over and over.
#[derive(Clone)]
pub struct Unary {
    pub method: &'static str,
    pub message: Bytes,
}

impl Unary {
    pub fn summary() -> Unary {
        Unary { method: "GetSummary", message: framed(&SummaryRequest::default()) }
    }

    pub fn list() -> Unary {
        let request = ListInvoicesRequest { page_size: 100, ..Default::default() };
        Unary { method: "ListInvoices", message: framed(&request) }
    }

    /// The first row of an export and its end.
    pub fn first_row() -> Unary {
        let request = ExportRequest { max_rows: 1, ..Default::default() };
        Unary { method: "ExportInvoices", message: framed(&request) }
    }
}

fn export_method(batched: bool) -> &'static str {
    if batched {
        "ExportInvoiceBatches"
    } else {
        "ExportInvoices"
    }
}

async fn open_export(connection: &Connection, batched: bool, max_rows: i64) -> Result<Call> {
    let mut call = connection.call(export_method(batched)).await?;
    let request = ExportRequest { max_rows, ..Default::default() };
    call.requests.send(framed(&request), true).await?;
    Ok(call)
}

/// One export to its end; 0 rows: all of them.
pub async fn export(address: SocketAddr, batched: bool, max_rows: i64) -> Result<Outcome> {
    export_with(address, batched, max_rows, Guard::Raised).await
}

/// The same under the guard of choice.
pub async fn export_with(
    address: SocketAddr,
    batched: bool,
    max_rows: i64,
    guard: Guard,
) -> Result<Outcome> {
    let connection = Connection::open(address, guard).await?;
    let mut outcome = Outcome::default();
    let start = Instant::now();
    let mut call = open_export(&connection, batched, max_rows).await?;
    while call.responses.frame().await?.is_some() {
        if outcome.latency.is_empty() {
            outcome.record(start);
        }
    }
    outcome.tally = call.responses.tally();
    outcome.operations = outcome.tally.rows;
    Ok(outcome.lasted(start))
}

/// `callers` that each make one call after the other.
pub async fn unary(
    address: SocketAddr,
    call: Unary,
    callers: usize,
    duration: Duration,
) -> Result<Outcome> {
    let mut connections = Vec::new();
    for _ in 0..callers.min(SHARED_CONNECTIONS) {
        connections.push(Connection::open(address, Guard::Raised).await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let connection = connections[caller % connections.len()].clone();
        let call = call.clone();
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            while start.elapsed() < duration {
                let sent = Instant::now();
                let (_, tally) = connection.unary(call.method, call.message.clone()).await?;
                outcome.record(sent);
                outcome.operations += 1;
                outcome.tally.add(tally);
            }
            Ok(outcome)
        });
    }
    join(tasks, start).await
}

async fn join(mut tasks: JoinSet<Result<Outcome>>, start: Instant) -> Result<Outcome> {
    let mut sum = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        // OK because a panic of a task is a fault of this program.
        sum.add(outcome.expect("a load does not panic")?);
    }
    Ok(sum.lasted(start))
}

/// Calls at a fixed rate, whatever the server does: latency counts from the time that was planned,
/// so that a server which stops for a while pays for every call it kept waiting.
pub async fn open_loop(
    address: SocketAddr,
    call: Unary,
    per_second: u32,
    duration: Duration,
) -> Result<Outcome> {
    let connection = Connection::open(address, Guard::Raised).await?;
    let (sender, mut plan) = tokio::sync::mpsc::unbounded_channel();
    let start = Instant::now();
    // The runtime's timer is good to 2 ms, and a thread's to a tenth of one.
    let clock = std::thread::spawn(move || {
        let gap = Duration::from_secs(1) / per_second;
        for n in 0..(duration.as_secs_f64() * f64::from(per_second)) as u32 {
            let planned = start + gap * n;
            std::thread::sleep(planned.saturating_duration_since(Instant::now()));
            if sender.send(planned).is_err() {
                return;
            }
        }
    });
    let mut tasks = JoinSet::new();
    while let Some(planned) = plan.recv().await {
        let (connection, call) = (connection.clone(), call.clone());
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            let (_, tally) = connection.unary(call.method, call.message).await?;
            outcome.record(planned);
            outcome.operations = 1;
            outcome.tally = tally;
            Ok(outcome)
        });
    }
    // OK because a panic of a thread is a fault of this program.
    clock.join().expect("a clock does not panic");
    join(tasks, start).await
}

/// The open loop while `exports` run, each on a connection of its own and begun again at its end.
/// They have a thread of their own, so that the calls do not wait for this program.
pub async fn beside_exports(
    address: SocketAddr,
    call: Unary,
    exports: usize,
    per_second: u32,
    duration: Duration,
) -> Result<Outcome> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let background = std::thread::spawn(move || {
        run(async {
            let mut tasks = JoinSet::new();
            for _ in 0..exports {
                tasks.spawn(async move { while export(address, false, 0).await.is_ok() {} });
            }
            // It ends when the other end is dropped.
            let _ = stopped.await;
            // None of them ends by itself, unless it failed.
            tasks.try_join_next().is_none()
        })
    });
    // Until all of them flow.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let outcome = open_loop(address, call, per_second, duration).await;
    drop(stop);
    // OK because a panic of a thread is a fault of this program.
    match background.join().expect("a load does not panic") {
        true => outcome,
        false => Err(Failure { code: None, message: "an export beside it failed".to_owned() }),
    }
}

/// Opens exports, reads the first row of each and then nothing more. They hang as long as the
/// calls are kept, each with a window of 64 KiB that is full. The second part is the number of
/// exports that gave no row in time.
pub async fn stall(
    address: SocketAddr,
    exports: usize,
) -> Result<(Vec<(Connection, Call)>, usize)> {
    let mut tasks = JoinSet::new();
    for _ in 0..exports {
        tasks.spawn(async move {
            let connection = Connection::open(address, Guard::Default).await?;
            let mut call = open_export(&connection, false, 0).await?;
            let row = timeout(FIRST_ROW, call.responses.frame()).await;
            Ok(((connection, call), row.is_ok()))
        });
    }
    let (mut calls, mut without) = (Vec::new(), 0);
    while let Some(opened) = tasks.join_next().await {
        // OK because a panic of a task is a fault of this program.
        let (call, row): (_, bool) = opened.expect("a load does not panic")?;
        without += usize::from(!row);
        calls.push(call);
    }
    Ok((calls, without))
}

/// A part of an id that no other load of this or another run uses.
pub fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The `n`th invoice of an upload.
pub fn invoice(prefix: &str, n: usize) -> CreateInvoiceRequest {
    CreateInvoiceRequest {
        invoice_id: format!("{prefix}-{n:07}"),
        customer_id: format!("customer-{:05}", n * 7919 % 20_000),
        total_amount_cents: (n * 7919 % 100_000) as i64,
        currency: ["USD", "EUR", "GBP"][n % 3].to_owned(),
        issued_at: Some(Timestamp { seconds: 1_700_000_000 + n as i64, nanos: 0 }),
        memo: "uploaded".to_owned(),
        commit: None,
    }
}

/// An upload closed by its commit, as framed bytes.
fn upload(rows: usize) -> Bytes {
    let prefix = unique();
    let mut bytes = BytesMut::new();
    for n in 0..rows {
        append(&invoice(&prefix, n), &mut bytes);
    }
    let commit = Some(BulkCommit { batch_id: prefix, count: rows as i64, ..Default::default() });
    append(&CreateInvoiceRequest { commit, ..Default::default() }, &mut bytes);
    bytes.freeze()
}

async fn send_upload(connection: &Connection, bytes: Bytes, rows: usize) -> Result<()> {
    let (answer, _) = connection.unary("BulkCreate", bytes).await?;
    let created = BulkResult::decode(answer).map(|result| result.created_count);
    match created == Ok(rows as i64) {
        true => Ok(()),
        false => Err(Failure { code: None, message: format!("created {created:?} of {rows}") }),
    }
}

/// One upload of many rows.
pub async fn bulk_create(address: SocketAddr, rows: usize) -> Result<Outcome> {
    let connection = Connection::open(address, Guard::Raised).await?;
    let bytes = upload(rows);
    let mut outcome = Outcome::default();
    let start = Instant::now();
    outcome.tally.bytes = bytes.len() as u64;
    send_upload(&connection, bytes, rows).await?;
    outcome.record(start);
    outcome.operations = rows as u64;
    Ok(outcome.lasted(start))
}

/// Clients with a connection each that upload `rows` over and over. Counts uploads.
pub async fn uploaders(
    address: SocketAddr,
    clients: usize,
    rows: usize,
    duration: Duration,
) -> Result<Outcome> {
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for _ in 0..clients {
        tasks.spawn(async move {
            let connection = Connection::open(address, Guard::Raised).await?;
            let mut outcome = Outcome::default();
            while start.elapsed() < duration {
                let bytes = upload(rows);
                let sent = Instant::now();
                outcome.tally.bytes += bytes.len() as u64;
                send_upload(&connection, bytes, rows).await?;
                outcome.record(sent);
                outcome.operations += 1;
            }
            Ok(outcome)
        });
    }
    join(tasks, start).await
}

/// Invoices that payments can be sent for: id and currency.
async fn invoices(address: SocketAddr) -> Result<Arc<[(String, String)]>> {
    let connection = Connection::open(address, Guard::Raised).await?;
    let request = ListInvoicesRequest { page_size: 1000, ..Default::default() };
    let (answer, _) = connection.unary("ListInvoices", framed(&request)).await?;
    let page = ListInvoicesResponse::decode(answer)
        .map_err(|error| Failure { code: None, message: error.to_string() })?;
    Ok(page.invoices.into_iter().map(|invoice| (invoice.invoice_id, invoice.currency)).collect())
}

/// Makes payments of one cent, each with an event id of its own.
struct Payments {
    invoices: Arc<[(String, String)]>,
    prefix: String,
    count: usize,
}

impl Payments {
    fn new(invoices: Arc<[(String, String)]>) -> Payments {
        Payments { invoices, prefix: unique(), count: 0 }
    }

    fn append(&mut self, bytes: &mut BytesMut) {
        let (invoice_id, currency) = &self.invoices[self.count * 7919 % self.invoices.len()];
        let event = ReconcileEvent {
            event_id: format!("{}-{}", self.prefix, self.count),
            invoice_id: invoice_id.clone(),
            amount_cents: 1,
            currency: currency.clone(),
            received_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            reference: String::new(),
            ..Default::default()
        };
        append(&event, bytes);
        self.count += 1;
    }
}

/// Clients with a connection each that send an event when the one before is acknowledged.
pub async fn reconcile(address: SocketAddr, clients: usize, duration: Duration) -> Result<Outcome> {
    let invoices = invoices(address).await?;
    let mut ready = Vec::new();
    for _ in 0..clients {
        let connection = Connection::open(address, Guard::Raised).await?;
        let payments = Payments::new(invoices.clone());
        ready.push((connection.call("Reconcile").await?, connection, payments));
    }
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for (mut call, connection, mut payments) in ready {
        tasks.spawn(async move {
            let _open = connection;
            let mut outcome = Outcome::default();
            while start.elapsed() < duration {
                let mut event = BytesMut::new();
                payments.append(&mut event);
                let sent = Instant::now();
                call.requests.send(event.freeze(), false).await?;
                while call.responses.tally().messages < payments.count as u64 {
                    call.responses.frame().await?;
                }
                outcome.record(sent);
                outcome.operations += 1;
            }
            call.requests.finish()?;
            while call.responses.frame().await?.is_some() {}
            outcome.tally = call.responses.tally();
            Ok(outcome)
        });
    }
    join(tasks, start).await
}

/// One client that sends events as fast as flow control lets it, and reads acknowledgements.
pub async fn pipeline(address: SocketAddr, events: usize) -> Result<Outcome> {
    let connection = Connection::open(address, Guard::Raised).await?;
    let mut payments = Payments::new(invoices(address).await?);
    let mut bytes = BytesMut::new();
    for _ in 0..events {
        payments.append(&mut bytes);
    }
    let mut outcome = Outcome::default();
    let start = Instant::now();
    let Call { mut requests, mut responses } = connection.call("Reconcile").await?;
    let sending = tokio::spawn(async move { requests.send(bytes.freeze(), true).await });
    while responses.frame().await?.is_some() {
        if outcome.latency.is_empty() {
            outcome.record(start);
        }
    }
    // OK because a panic of a task is a fault of this program.
    sending.await.expect("a load does not panic")?;
    outcome.tally = responses.tally();
    outcome.operations = outcome.tally.messages;
    Ok(outcome.lasted(start))
}
