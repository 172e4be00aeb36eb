//! A thousand exports of a million rows whose clients stop reading after the first row.

use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, Invoice, InvoiceBatch, SummaryRequest};
use billstream::Config;
use futures::executor::block_on;
use futures::future::join_all;
use futures::StreamExt;
use grpcio::ClientSStreamReceiver;

use crate::common::*;
use crate::support::*;

const ROWS: i64 = 1_000_000;
/// Rows that come while they are stalled.
const WRITTEN: i64 = 1000;
const EXPORTS: usize = 1000;
const CONNECTIONS: usize = 10;

enum Stream {
    Rows(ClientSStreamReceiver<Invoice>),
    Batches(ClientSStreamReceiver<InvoiceBatch>),
}

/// An export and what is still to come of its set.
struct Export {
    stream: Stream,
    next: i64,
    last: i64,
}

impl Export {
    /// The `i`th: every fourth has one row a message. A dozen want everything, the others a few
    /// thousand rows, which is more than the windows and buffers hold.
    fn open(client: &Stub, i: usize) -> Export {
        let is_whole = i % 100 == 7 || i.is_multiple_of(500);
        let (after, rows) =
            if is_whole { (0, ROWS) } else { (i as i64 * 500, 5000 + i as i64 * 37 % 3000) };
        let max_rows = if is_whole { 0 } else { rows };
        let request = ExportRequest { after_sequence: after, max_rows, ..ExportRequest::default() };
        let stream = if i.is_multiple_of(4) {
            Stream::Rows(client.export_invoices(&request, options()).unwrap())
        } else {
            Stream::Batches(client.export_invoice_batches(&request, options()).unwrap())
        };
        Export { stream, next: after + 1, last: after + rows }
    }

    /// Reads one message; false at the end, which must be that of the set.
    async fn read(&mut self) -> bool {
        let invoices = match &mut self.stream {
            Stream::Rows(rows) => rows.next().await.map(|row| vec![row.unwrap()]),
            Stream::Batches(batches) => batches.next().await.map(|batch| batch.unwrap().invoices),
        };
        let Some(invoices) = invoices else {
            assert_eq!(self.next, self.last + 1, "it ended before its last row");
            return false;
        };
        for invoice in invoices {
            assert_eq!(invoice.sequence, self.next);
            self.next += 1;
        }
        true
    }

    async fn read_on(mut self) -> i64 {
        let first = self.next;
        while self.read().await {}
        self.next - first
    }
}

/// The exports, by connection, each with its first message read.
fn stalled(clients: &[Stub]) -> Vec<Vec<Export>> {
    let mut exports: Vec<Vec<Export>> = clients.iter().map(|_| Vec::new()).collect();
    for i in 0..EXPORTS {
        let connection = i / (EXPORTS / clients.len());
        exports[connection].push(Export::open(&clients[connection], i));
    }
    for export in exports.iter_mut().flatten() {
        assert!(block_on(export.read()));
    }
    exports
}

/// Each connection on a thread of its own, all its exports at once; the rows that came.
fn read_on(exports: Vec<Vec<Export>>) -> i64 {
    let readers: Vec<_> = exports
        .into_iter()
        .map(|exports| {
            std::thread::spawn(move || {
                block_on(join_all(exports.into_iter().map(Export::read_on))).iter().sum::<i64>()
            })
        })
        .collect();
    readers.into_iter().map(|reader| reader.join().unwrap()).sum()
}

#[test]
fn a_thousand_stalled_exports_cost_memory_alone_and_read_on() {
    let _alone = alone();
    let server = Process::with_copy(&database(ROWS as u64), &[]);
    let fresh = Stub::new(&server.addr);
    // One of each rpc, so that what is started once is there.
    summary(&fresh);
    assert!(block_on(Export::open(&fresh, 4).read()));
    let idle = median(summary_times(&fresh, ROWS));
    let (memory, threads) = (server.rss_mib(), server.threads());

    let clients = slow_clients(&server.addr, CONNECTIONS);
    let start = Instant::now();
    let exports = stalled(&clients);
    println!("{EXPORTS} exports stalled after {:?}", start.elapsed());
    log_is_emptied(&server, &fresh);
    assert_no_more_threads(&server, &threads);
    summaries_are_quick(&fresh, idle);
    let start = Instant::now();
    let mut export = Export::open(&fresh, 7);
    export.last += WRITTEN;
    assert_eq!(block_on(export.read_on()), ROWS + WRITTEN);
    println!("a fresh export of all rows took {:?}", start.elapsed());
    // By now every buffer is full.
    let grown = server.rss_mib().saturating_sub(memory);
    println!("memory: {memory} MiB and {grown} more");
    assert!(grown < 256, "{grown} MiB");

    let start = Instant::now();
    let rows = read_on(exports);
    println!("then the others read {rows} rows in {:?}", start.elapsed());
    println!("memory at the end: {} MiB", server.rss_mib());
}

/// The server's own threads. gRPC has pools beside them (timers, closures) that begin with a thread
/// each and grow by load up to a few for each processor, whatever the number of streams; and the one
/// thread of all timers begins with the first of them.
fn own_threads(names: &[String]) -> Vec<String> {
    let theirs =
        ["grpc", "event_engine", "default-exec", "resolver-exec", "timer_manager", "futures-timer"];
    let is_own = |name: &&String| !theirs.iter().any(|their| name.starts_with(their));
    names.iter().filter(is_own).cloned().collect()
}

/// Waits, because a thread that starts has the name of its parent at first.
fn assert_no_more_threads(server: &Process, before: &[String]) {
    let own = own_threads(before);
    eventually("it has its own threads alone", || own_threads(&server.threads()) == own);
    let processors = std::thread::available_parallelism().unwrap().get();
    let now = server.threads();
    println!("threads: {}, now {} with those of gRPC", before.len(), now.len());
    assert!(now.len() <= before.len() + 4 * processors, "before {before:?}, now {now:?}");
}

/// Writes, and has another process's connection empty the log, which needs a moment with no reader.
fn log_is_emptied(server: &Process, client: &Stub) {
    let start = Instant::now();
    let invoices = (0..WRITTEN).map(|i| invoice(&format!("new-{i}"), 1));
    assert_eq!(upload(client, invoices).unwrap().created_count, WRITTEN);
    let wal = server.db.with_extension("db-wal");
    assert!(wal.metadata().unwrap().len() > 0, "there are writes in the log");
    let conn = rusqlite::Connection::open(&server.db).unwrap();
    conn.busy_timeout(Duration::ZERO).unwrap();
    eventually("the log is emptied", || {
        let is_busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        is_busy == Ok(0)
    });
    assert_eq!(wal.metadata().unwrap().len(), 0);
    println!("written and emptied the log within {:?}", start.elapsed());
}

/// As quick as `idle` allows, which was taken without the exports: a busy host makes both slow.
fn summaries_are_quick(client: &Stub, idle: Duration) {
    let times = summary_times(client, ROWS + WRITTEN);
    let slowest = times.iter().max().copied();
    let median = median(times);
    println!(
        "GetSummary beside them: median {median:?} ({idle:?} without them), slowest {slowest:?}"
    );
    assert!(median < 20 * idle + Duration::from_millis(100), "{median:?}");
}

fn summary_times(client: &Stub, invoices: i64) -> Vec<Duration> {
    let call = |_| {
        let start = Instant::now();
        let summary = client.get_summary(&SummaryRequest::new(), options());
        assert_eq!(summary.unwrap().invoice_count, invoices);
        start.elapsed()
    };
    (0..100).map(call).collect()
}

#[test]
fn a_thousand_stalled_exports_hold_no_connection() {
    let _alone = alone();
    let server = TestServer::with_copy(&database(ROWS as u64), Config::default());
    // The second is one of a machine that does nothing else; the best of three counts.
    let took = (0..3).map(|_| no_connection_after(&server)).min().unwrap();
    // It is all work, 0.7 s of it where this was written; twice that is a slower machine.
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// The time that this process has had the processors, in all.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name, in parentheses, may have spaces. Ticks are hundredths of a second on Linux.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |i: usize| fields[i].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// Stalls a thousand exports; how long after that no connection is in use, or how long that would
/// take if no other program had the processors.
fn no_connection_after(server: &TestServer) -> Duration {
    let clients = slow_clients(&server.addr(), CONNECTIONS);
    let (metrics, free) = (server.get().metrics(), || server.get().connections_in_use() == 0);
    let (parked, scanned) = (metrics.scans_parked.get(), metrics.rows_scanned.get());
    let exports = stalled(&clients);
    let (start, worked) = (Instant::now(), processor_time());
    // A moment between two turns is not enough: the last turn is meant.
    let (mut since, mut until) = (start, worked);
    eventually("no connection is in use", || {
        if !free() {
            (since, until) = (Instant::now(), processor_time());
        }
        since.elapsed() > Duration::from_millis(100)
    });
    let processors = std::thread::available_parallelism().unwrap().get() as u32;
    let (took, work) = (since - start, (until - worked) / processors);
    println!(
        "no connection in use after {took:?}, {work:?} of work; parked {} times, {} rows read",
        metrics.scans_parked.get() - parked,
        metrics.rows_scanned.get() - scanned
    );
    assert_eq!(server.get().streams_open(), EXPORTS);
    // Cancelled, they leave nothing.
    drop(exports);
    eventually("the streams are closed", || server.get().streams_open() == 0 && free());
    took.min(work)
}
