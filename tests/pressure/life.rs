//! The life of exports in random order, against a model: whatever happens meanwhile, the set that
//! is delivered is the set that was promised.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, Invoice, InvoiceBatch};
use billstream::{Config, Server};
use futures::executor::block_on;
use futures::{FutureExt, StreamExt};
use grpcio::ClientSStreamReceiver;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use protobuf::EnumOrUnknown;

use crate::common::*;
use crate::support::*;

/// Rows at the start; with their memo of 300 bytes far more than windows and buffers hold.
const ROWS: i64 = 2000;
const CUSTOMERS: i64 = 3;
const SLOTS: usize = 4;

#[derive(Clone, Debug)]
struct Wanted {
    is_batched: bool,
    customer: Option<i64>,
    /// Statuses by their numbers; empty: all.
    statuses: Vec<i32>,
    /// Rows by the times they were issued at.
    issued: Option<Range<i64>>,
    after: i64,
    max_rows: i64,
}

#[derive(Clone, Debug)]
enum Step {
    Open(usize, Wanted),
    /// Reads so many messages.
    Read(usize, usize),
    /// Nobody reads until every scan has given its connection back.
    Stall,
    Insert(i64),
    /// Gives every so manieth invoice a status.
    ChangeStatus(i64, i32),
    Cancel(usize),
    /// A new call that goes on where another is.
    Resume(usize),
    /// Reads to the end.
    Finish(usize),
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let rarely = |strategy| prop::option::weighted(0.3, strategy);
    let issued = prop::option::weighted(0.3, (0..ROWS, 1..ROWS).prop_map(|(a, n)| a..a + n));
    (
        any::<bool>(),
        rarely(0..CUSTOMERS),
        prop::collection::btree_set(1..=5i32, 0..3),
        issued,
        prop_oneof![3 => Just(0), 1 => 0..ROWS + 100],
        prop_oneof![3 => Just(0), 1 => 1..ROWS],
    )
        .prop_map(|(is_batched, customer, statuses, issued, after, max_rows)| Wanted {
            is_batched,
            customer,
            statuses: statuses.into_iter().collect(),
            issued,
            after,
            max_rows,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..SLOTS;
    prop_oneof![
        4 => (slot.clone(), wanted()).prop_map(|(slot, wanted)| Step::Open(slot, wanted)),
        6 => (slot.clone(), 1..400usize).prop_map(|(slot, n)| Step::Read(slot, n)),
        3 => Just(Step::Stall),
        2 => (1..50i64).prop_map(Step::Insert),
        2 => (1..9i64, 1..=5i32).prop_map(|(every, status)| Step::ChangeStatus(every, status)),
        1 => slot.clone().prop_map(Step::Cancel),
        2 => slot.clone().prop_map(Step::Resume),
        2 => slot.prop_map(Step::Finish),
    ]
}

/// Small chunks and short turns, so that much happens; all exports share one worker.
fn config() -> impl Strategy<Value = Config> {
    (1..2000usize, 256..8000usize, 1..4usize, 0..4u64, 0..4u64).prop_map(
        |(first, chunk, queue, park, turn)| Config {
            export_workers: 1,
            export_first_chunk_bytes: first,
            export_chunk_bytes: chunk,
            export_queue_chunks: queue,
            park_after_ms: park,
            export_turn_ms: turn,
            ..Config::default()
        },
    )
}

enum Stream {
    Rows(ClientSStreamReceiver<Invoice>),
    Batches(ClientSStreamReceiver<InvoiceBatch>),
}

/// An open export, with what the model knows of it.
struct Export {
    wanted: Wanted,
    stream: Stream,
    /// The statuses that each row of the set has had since the start, as bits.
    seen: Vec<u8>,
    got: Vec<i64>,
    is_ended: bool,
}

impl Export {
    /// The call has begun when its first message, or its end, is here.
    fn open(client: &Stub, wanted: Wanted, statuses: &[i32]) -> Export {
        let request = ExportRequest {
            customer_id: wanted.customer.map_or(String::new(), customer),
            statuses: wanted.statuses.iter().map(|s| EnumOrUnknown::from_i32(*s)).collect(),
            issued_from: wanted.issued.as_ref().map(|rows| issued(rows.start)).into(),
            issued_until: wanted.issued.as_ref().map(|rows| issued(rows.end)).into(),
            after_sequence: wanted.after,
            max_rows: wanted.max_rows,
            ..ExportRequest::default()
        };
        let stream = if wanted.is_batched {
            Stream::Batches(client.export_invoice_batches(&request, options()).unwrap())
        } else {
            Stream::Rows(client.export_invoices(&request, options()).unwrap())
        };
        let seen = statuses.iter().map(|status| 1 << status).collect();
        let mut export = Export { wanted, stream, seen, got: Vec::new(), is_ended: false };
        export.read(1);
        export
    }

    fn read(&mut self, messages: usize) {
        for _ in 0..messages {
            if self.is_ended {
                return;
            }
            let next = match &mut self.stream {
                Stream::Rows(rows) => block_on(rows.next().map(|row| Some(vec![row?.unwrap()]))),
                Stream::Batches(batches) => {
                    block_on(batches.next().map(|batch| Some(batch?.unwrap().invoices)))
                }
            };
            self.is_ended = next.is_none();
            next.into_iter().flatten().for_each(|invoice| self.take(&invoice));
        }
    }

    fn take(&mut self, invoice: &Invoice) {
        assert!(invoice.sequence as usize <= self.seen.len(), "created after the start");
        assert_eq!(invoice.invoice_id, invoice_id(invoice.sequence));
        let status = 1 << invoice.status.value();
        assert_ne!(self.seen[invoice.sequence as usize - 1] & status, 0, "{invoice:?}");
        self.got.push(invoice.sequence);
    }

    fn cursor(&self) -> i64 {
        self.got.last().copied().unwrap_or(self.wanted.after)
    }

    fn is_full(&self) -> bool {
        self.wanted.max_rows > 0 && self.got.len() as i64 == self.wanted.max_rows
    }

    /// What came is in order and without a hole, as far as it came. A row whose status changed in
    /// and out of the filter meanwhile may be in the set or not.
    fn check(&self) {
        let wanted = &self.wanted;
        assert!(self.got.windows(2).all(|pair| pair[0] < pair[1]), "out of order: {:?}", self.got);
        assert!(wanted.max_rows == 0 || self.got.len() as i64 <= wanted.max_rows);
        let came_to_its_end = self.is_ended && !self.is_full();
        let until = if came_to_its_end { self.seen.len() as i64 } else { self.cursor() };
        let asked = wanted.statuses.iter().fold(0, |bits, status| bits | 1u8 << status);
        let asked = if asked == 0 { u8::MAX } else { asked };
        let mut got = self.got.iter().peekable();
        for sequence in wanted.after + 1..=until {
            let seen = self.seen[sequence as usize - 1];
            let is_mine = wanted.customer.is_none_or(|c| c == sequence % CUSTOMERS)
                && wanted.issued.as_ref().is_none_or(|rows| rows.contains(&sequence));
            if got.next_if_eq(&&sequence).is_some() {
                assert!(is_mine && seen & asked != 0, "{sequence} was not asked for");
            } else {
                assert!(!is_mine || seen & !asked != 0, "{sequence} is missing");
            }
        }
        assert_eq!(got.next(), None, "not after the cursor");
    }
}

fn invoice_id(sequence: i64) -> String {
    format!("inv-{sequence}")
}

fn customer(n: i64) -> String {
    format!("cust-{n}")
}

fn issued(sequence: i64) -> protobuf::well_known_types::timestamp::Timestamp {
    time(1000 * sequence).unwrap()
}

struct World {
    server: TestServer,
    client: Stub,
    /// Of each row, by its sequence less one.
    statuses: Vec<i32>,
    exports: [Option<Export>; SLOTS],
}

impl World {
    fn new(db: &Path, config: Config) -> World {
        let server = TestServer::with_copy(db, config);
        let client = server.slow_client();
        World { server, client, statuses: vec![1; ROWS as usize], exports: Default::default() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Open(slot, wanted) => self.open(slot, wanted),
            Step::Read(slot, messages) => self.with(slot, |export| export.read(messages)),
            Step::Stall => eventually("no scan holds a connection", || {
                self.server.get().connections_in_use() == 0
            }),
            Step::Insert(rows) => self.insert(rows),
            Step::ChangeStatus(every, status) => self.change_status(every, status),
            Step::Cancel(slot) => self.exports[slot] = None,
            Step::Resume(slot) => self.resume(slot),
            Step::Finish(slot) => self.with(slot, |export| export.read(usize::MAX)),
        }
    }

    fn with(&mut self, slot: usize, act: impl FnOnce(&mut Export)) {
        if let Some(export) = &mut self.exports[slot] {
            act(export);
            export.check();
        }
    }

    fn open(&mut self, slot: usize, wanted: Wanted) {
        self.exports[slot] = Some(Export::open(&self.client, wanted, &self.statuses));
        self.with(slot, |_| ());
    }

    fn resume(&mut self, slot: usize) {
        let Some(export) = self.exports[slot].take() else { return };
        let mut wanted = Wanted { after: export.cursor(), ..export.wanted.clone() };
        if wanted.max_rows > 0 {
            // 0 would be all.
            wanted.max_rows = (wanted.max_rows - export.got.len() as i64).max(1);
        }
        drop(export);
        self.open(slot, wanted);
    }

    fn insert(&mut self, rows: i64) {
        let first = self.statuses.len() as i64 + 1;
        let invoices = (first..first + rows).map(|sequence| {
            let mut invoice = invoice(&invoice_id(sequence), 100);
            invoice.customer_id = customer(sequence % CUSTOMERS);
            invoice.issued_at = Some(issued(sequence)).into();
            invoice
        });
        let created = upload(&self.client, invoices).unwrap();
        assert_eq!(created.first_sequence, first);
        self.statuses.resize(self.statuses.len() + rows as usize, 1);
    }

    fn change_status(&mut self, every: i64, status: i32) {
        // What an export may see of it, it may see before this returns.
        for sequence in (every..=self.statuses.len() as i64).step_by(every as usize) {
            let row = sequence as usize - 1;
            self.statuses[row] = status;
            for export in self.exports.iter_mut().flatten().filter(|e| row < e.seen.len()) {
                export.seen[row] |= 1 << status;
            }
        }
        let update = "UPDATE invoices SET status = ?1 WHERE sequence % ?2 = 0";
        self.server.sql().execute(update, rusqlite::params![status, every]).unwrap();
    }

    fn end(mut self) -> u64 {
        for slot in 0..SLOTS {
            self.with(slot, |export| export.read(usize::MAX));
        }
        let server = self.server.get();
        self.exports = Default::default();
        eventually("nothing is left of them", || {
            server.streams_open() == 0 && server.connections_in_use() == 0
        });
        server.metrics().scans_parked.get()
    }
}

/// The database that every case begins with.
fn template(dir: &Path) -> std::path::PathBuf {
    let db = dir.join("template.db");
    let listen = "127.0.0.1:0".to_owned();
    let config = Config { db: db.clone(), listen: vec![listen], ..Config::default() };
    Server::start(config).unwrap().shutdown().unwrap();
    let conn = rusqlite::Connection::open(&db).unwrap();
    conn.execute_batch(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO invoices (sequence, invoice_id, customer_id, total_amount_cents, currency,
                               status, paid_cents, issued_at, issued_at_nanos, memo)
         SELECT i, 'inv-' || i, 'cust-' || (i % {CUSTOMERS}), 100, 'USD', 1, 0, 1000 * i, 0,
                printf('%0300d', i)
         FROM n;
         PRAGMA wal_checkpoint(TRUNCATE);"
    ))
    .unwrap();
    db
}

#[test]
fn the_set_delivered_is_the_set_promised() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let db = template(dir.path());
    let parked = AtomicU64::new(0);
    let cases = std::env::var("PROPTEST_CASES").map_or(100, |n| n.parse().unwrap());
    let cases =
        Cases { cases, failure_persistence: None, max_shrink_iters: 100, ..Cases::default() };
    let life = (config(), prop::collection::vec(step(), 1..40));
    let result = TestRunner::new(cases).run(&life, |(config, steps)| {
        let mut world = World::new(&db, config);
        steps.into_iter().for_each(|step| world.take(step));
        parked.fetch_add(world.end(), Ordering::Relaxed);
        Ok(())
    });
    println!("scans were parked {} times", parked.load(Ordering::Relaxed));
    result.unwrap();
    assert!(parked.into_inner() > 0, "nothing was parked");
}
