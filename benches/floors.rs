//! Each floor alone, so that a change in the whole can be blamed: scan, encode, bridge, group commit.
//!
//! `cargo bench --bench floors` (with the release profile's flags; see the README). It prints and
//! asserts nothing.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use billstream::bridge;
use billstream::metrics::Metrics;
use billstream::model::{Event, Filter, NewInvoice, Payment, Timestamp};
use billstream::stop::Stop;
use billstream::store::encode::Chunk;
use billstream::store::scan::{Block, Offer, Scan, Set};
use billstream::store::sqlite::read::push_invoices;
use billstream::store::sqlite::sql::INVOICES_AFTER;
use billstream::store::staged::Staged;
use billstream::store::{Store, StoreThread};
use billstream::Config;
use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use futures::executor::block_on;
use futures::StreamExt;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{named_params, Connection};

const ROWS: usize = 100_000;

/// An open database in a directory of its own.
struct Database {
    config: Config,
    store: Store,
    thread: Option<StoreThread>,
    metrics: Arc<Metrics>,
    _dir: tempfile::TempDir,
}

impl Database {
    fn with_rows(rows: usize) -> Database {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let metrics = Arc::new(Metrics::default());
        let (store, thread) = Store::open(&config, &metrics).expect("a database");
        let database = Database { config, store, thread: Some(thread), metrics, _dir: dir };
        database.upload(0, rows);
        database
    }

    /// A connection of its own, in which `push_invoice` is another function.
    fn connection(
        &self,
        push_invoice: impl Fn(&Context<'_>) -> rusqlite::Result<i64> + Send + 'static,
    ) -> Connection {
        let conn = Connection::open(&self.config.db).expect("a connection");
        let flags = FunctionFlags::SQLITE_UTF8;
        conn.create_scalar_function("push_invoice", 10, flags, push_invoice).expect("a function");
        conn
    }

    fn upload(&self, first: usize, rows: usize) {
        let mut staged = Staged::default();
        for i in first..first + rows {
            staged.push(&NewInvoice {
                invoice_id: &format!("inv-{i:08}"),
                customer_id: &format!("cust-{:05}", i % 1000),
                total_amount_cents: (i % 100_000) as i64,
                currency: ["USD", "EUR", "JPY"][i % 3],
                issued_at: Timestamp { seconds: 1_000_000_000 + i as i64, nanos: 0 },
                memo: "a memo of some length",
            });
        }
        let created = self.store.writer.create(String::new(), staged);
        block_on(created.expect("a place in the queue")).expect("the upload");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
    }
}

fn scan(c: &mut Criterion) {
    let database = Database::with_rows(ROWS);
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(ROWS as u64));
    let step = |conn: &Connection| {
        push_invoices(conn, &Filter::ALL, (0, i64::MAX), Chunk::default(), |chunk, _| {
            if chunk.batch().len() > 64 << 10 {
                *chunk = Chunk::default();
            }
            Ok(true)
        })
    };
    let conn = database.connection(|_| Ok(0));
    group.bench_function("step", |b| b.iter(|| step(&conn).expect("a scan")));
    group.bench_function("step_and_encode", |b| {
        b.iter(|| database.store.reader.read(&Stop::default(), step).expect("a scan"))
    });
    group.bench_function("in_chunks", |b| {
        b.iter(|| {
            let (metrics, pressure) = (Arc::clone(&database.metrics), Default::default());
            let (config, bytes) = (&database.config, database.config.export_chunk_bytes);
            let set = Set {
                filter: Filter::ALL,
                after: 0,
                until: database.store.committed_sequence(),
                max_rows: 0,
            };
            let mut scan = Scan::new(set, bytes, config, metrics, pressure);
            let is_over = || false;
            scan.run(&database.store.reader, &Stop::default(), no_block, is_over, |_| Offer::Taken)
                .expect("a scan")
        })
    });
    group.finish();
}

/// One row of SQLite over and over, to its bytes: the encoder without the scan.
fn encode(c: &mut Criterion) {
    let database = Database::with_rows(1000);
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("one_row", |b| {
        b.iter_custom(|iterations| {
            let conn = database.connection(move |row| {
                let start = Instant::now();
                for _ in 0..iterations {
                    let mut chunk = Chunk::default();
                    for _ in 0..ROWS {
                        chunk.push(row).expect("a valid row");
                        if chunk.batch().len() > 64 << 10 {
                            chunk = Chunk::default();
                        }
                    }
                    std::hint::black_box(&chunk);
                }
                Ok(start.elapsed().as_nanos() as i64)
            });
            let mut row = conn.prepare(INVOICES_AFTER).expect("a statement");
            let one = named_params! { ":after": 500, ":until": i64::MAX };
            let nanoseconds: i64 = row.query_row(one, |row| row.get(0)).expect("a row");
            Duration::from_nanos(nanoseconds as u64)
        })
    });
    group.finish();
}

/// No other thread helps.
fn no_block(_: Block) -> Option<fn() -> billstream::Result<Vec<Chunk>>> {
    None
}

/// A chunk a send, as an export does it, from a thread to a future.
fn bridge(c: &mut Criterion) {
    const VALUES: u64 = 10_000;
    let mut group = c.benchmark_group("bridge");
    group.throughput(Throughput::Elements(VALUES));
    for capacity in [1, 2, 16] {
        group.bench_with_input(BenchmarkId::from_parameter(capacity), &capacity, |b, capacity| {
            b.iter(|| {
                let (tx, rx) = bridge::bounded(*capacity);
                let sender = thread::spawn(move || {
                    for i in 0..VALUES {
                        tx.send_timeout(i, Duration::from_secs(60)).expect("room");
                    }
                });
                assert_eq!(block_on(rx.count()), VALUES as usize);
                sender.join().expect("the sender ends");
            })
        });
    }
    group.finish();
}

/// Durable events a second, from callers that each wait for their own.
fn group_commit(c: &mut Criterion) {
    let database = Database::with_rows(1000);
    let mut group = c.benchmark_group("group_commit");
    group.sample_size(10).throughput(Throughput::Elements(1));
    for callers in [1, 8, 64] {
        group.bench_with_input(BenchmarkId::from_parameter(callers), &callers, |b, callers| {
            b.iter_custom(|events| {
                let each = events.div_ceil(*callers);
                let start = Instant::now();
                thread::scope(|scope| {
                    for _ in 0..*callers {
                        scope.spawn(|| (0..each).for_each(|_| pay(&database)));
                    }
                });
                start.elapsed()
            })
        });
    }
    group.finish();
}

fn pay(database: &Database) {
    let event = Event {
        event_id: uuid::Uuid::now_v7().to_string(),
        payment: Ok(Payment {
            invoice_id: "inv-00000007".to_owned(),
            amount_cents: 1,
            currency: "EUR".to_owned(),
            received_at: Timestamp { seconds: 1, nanos: 0 },
            reference: String::new(),
        }),
    };
    let applied = database.store.writer.apply(vec![event]);
    block_on(applied.expect("a place in the queue")).expect("an ack");
}

/// An upload of 10,000 invoices, staged and inserted.
fn upload(c: &mut Criterion) {
    let database = Database::with_rows(0);
    let mut group = c.benchmark_group("upload");
    group.sample_size(10).throughput(Throughput::Elements(10_000));
    let mut first = 0;
    group.bench_function("10000", |b| {
        b.iter(|| {
            database.upload(first, 10_000);
            first += 10_000;
        })
    });
    group.finish();
}

criterion_group!(benches, scan, encode, bridge, group_commit, upload);
criterion_main!(benches);
