//! Each floor alone, so that a change in the whole can be blamed: scan, encode, bridge, group commit.
//!
//! `cargo bench --bench floors` (with the release profile's flags; see the README). It prints and
//! asserts nothing.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use billstream::bridge;
use billstream::model::{Entry, Event, Filter, Kind, NewInvoice, Timestamp};
use billstream::stop::Stop;
use billstream::store::encode::{Chunk, Columns};
use billstream::store::scan::{Ahead, Offer, Set, Source};
use billstream::store::staged::Staged;
use billstream::store::{Store, StoreThread};
use billstream::Config;
use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use futures::executor::block_on;
use futures::StreamExt;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{named_params, Connection};

const ROWS: usize = 100_000;

/// The statement of an export.
const INVOICES_AFTER: &str = include_str!("../sql/queries/invoices_after.sql");

/// An open database in a directory of its own.
struct Database {
    config: Config,
    store: Store,
    thread: Option<StoreThread>,
    _dir: tempfile::TempDir,
}

impl Database {
    fn with_rows(rows: usize) -> Database {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let (store, thread) = Store::open(&config, &Arc::default()).expect("a database");
        let database = Database { config, store, thread: Some(thread), _dir: dir };
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
        let created = self.store.create(String::new(), staged, false);
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
        let mut statement = conn.prepare_cached(INVOICES_AFTER).expect("a statement");
        let all = named_params! { ":after": 0, ":until": i64::MAX };
        let mut rows = statement.query(all).expect("a query");
        while rows.next().expect("a row").is_some() {}
    };
    let conn = database.connection(|_| Ok(0));
    group.bench_function("step", |b| b.iter(|| step(&conn)));
    let conn = database.connection(|row| {
        CHUNK.with_borrow_mut(|chunk| push(chunk, row));
        Ok(0)
    });
    group.bench_function("step_and_encode", |b| b.iter(|| step(&conn)));
    group.bench_function("in_chunks", |b| {
        b.iter(|| {
            let set = Set {
                source: Source::Invoices(Filter::ALL),
                after: 0,
                until: database.store.committed(&Source::Invoices(Filter::ALL)),
                max_rows: 0,
            };
            let mut scan = database.store.scan(set, database.config.export_chunk_bytes);
            scan.turn(&Stop::default(), no_block, || false, |_| Offer::Taken).expect("a scan")
        })
    });
    group.finish();
}

thread_local! {
    static CHUNK: RefCell<Chunk> = RefCell::default();
}

/// As the store's own function does it, to chunks of 64 KiB.
fn push(chunk: &mut Chunk, row: &Context<'_>) {
    let integer = |column| row.get_raw(column).as_i64().expect("an integer");
    let text = |column| row.get_raw(column).as_str().expect("text").as_bytes();
    chunk.push(&Columns {
        sequence: integer(0),
        invoice_id: text(1),
        customer_id: text(2),
        total_amount_cents: integer(3),
        currency: text(4),
        status: integer(5),
        paid_cents: integer(6),
        issued_at: integer(7),
        issued_at_nanos: integer(8),
        memo: text(9),
    });
    if chunk.batch().len() > 64 << 10 {
        *chunk = Chunk::default();
    }
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
                        push(&mut chunk, row);
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
fn no_block(_: Ahead) -> Option<Ahead> {
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
        entry: Ok(Entry {
            kind: Kind::Payment,
            invoice_id: "inv-00000007".to_owned(),
            amount_cents: 1,
            currency: "EUR".to_owned(),
            received_at: Timestamp { seconds: 1, nanos: 0 },
            reference: String::new(),
        }),
    };
    let applied = database.store.apply(Arc::new(vec![event]), false);
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
