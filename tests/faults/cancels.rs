//! Uploads that are cancelled at random moments are in the database whole or not at all, and not
//! at all unless the server had the whole upload.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use billstream::client::Stub;
use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, Environment, WriteFlags};
use rusqlite::Connection;

use crate::load::Load;
use crate::proxy::Cut;
use crate::support::{
    assert_sound, commit, commit_required, environment, open, options, rows_by_customer, seed,
    send_rows, upload, variable, wait_for, Local, Rng, Served, Upload,
};
use crate::ways::{cut, from_python, kill_client, kill_import};

/// Uploads under way at a time.
const THREADS: u64 = 6;
/// The longest a client waits at the moment it was told to go away, in microseconds.
pub const MOMENT_US: u64 = 3_000;
/// A customer that the load pays and exports.
pub const LOAD: &str = "load";
pub const LOAD_ROWS: usize = 3_000;

/// How an upload ends, where it is not cancelled before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// With its last invoice.
    Plain,
    /// With a commit that was not announced.
    Commit,
    /// With a commit that the header announced.
    Required,
}

/// How far a client goes before it goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Some of the invoices.
    Part,
    /// All of them, and nothing after them.
    Rows,
    /// The commit, where there is one.
    Commit,
    /// The half-close: the upload is complete.
    Close,
}

pub const STAGES: [Stage; 4] = [Stage::Part, Stage::Rows, Stage::Commit, Stage::Close];

/// How a client goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    ClientCancel,
    Reset,
    Finish,
    KillClient,
    KillImport,
    Python,
}

/// One upload, and how far its client may have come with it: never further than is said here.
pub struct Attempt {
    pub customer: String,
    pub way: Way,
    pub ending: Ending,
    pub rows: usize,
    pub commit_sent: bool,
    pub half_closed: bool,
    /// The client got the result.
    pub is_acknowledged: bool,
}

impl Attempt {
    /// Whether the server can have had the complete upload.
    pub fn was_complete(&self) -> bool {
        match self.ending {
            Ending::Plain => self.half_closed,
            Ending::Commit | Ending::Required => self.commit_sent,
        }
    }
}

/// What an upload is to do.
pub struct Plan {
    pub customer: String,
    pub way: Way,
    pub ending: Ending,
    pub stage: Stage,
    pub rows: usize,
    /// Invoices to send: all of them, but for [`Stage::Part`].
    pub sent: usize,
}

impl Plan {
    pub fn new(number: u64, way: Way, rng: &mut Rng) -> Plan {
        // Most are small, which is quickest at the writer; some are spooled to a file.
        let most = rng.pick(&[3, 3, 30, 300]);
        let rows = rng.range(1, most) as usize;
        // The dangerous one is likelier: all invoices are there, and only the half-close is not.
        let stage = rng.pick(&[Stage::Rows, STAGES[0], STAGES[1], STAGES[2], STAGES[3]]);
        let sent = if stage == Stage::Part { rng.range(0, rows as u64 - 1) as usize } else { rows };
        let ending = rng.pick(&[Ending::Plain, Ending::Plain, Ending::Commit, Ending::Required]);
        Plan { customer: format!("{way:?}-{number}"), way, ending, stage, rows, sent }
    }

    pub fn sends_commit(&self) -> bool {
        self.ending != Ending::Plain && matches!(self.stage, Stage::Commit | Stage::Close)
    }

    pub fn attempt(&self, is_acknowledged: bool) -> Attempt {
        Attempt {
            customer: self.customer.clone(),
            way: self.way,
            ending: self.ending,
            rows: self.rows,
            commit_sent: self.sends_commit(),
            half_closed: self.stage == Stage::Close,
            is_acknowledged,
        }
    }

    pub fn options(&self) -> CallOption {
        if self.ending == Ending::Required {
            commit_required()
        } else {
            options()
        }
    }

    /// Goes as far as the stage. An error means that the connection is gone, which is planned.
    pub async fn send(&self, (requests, _): &mut Upload) -> grpcio::Result<()> {
        send_rows(requests, &self.customer, 0..self.sent).await?;
        if self.sends_commit() {
            let last = commit(&self.customer, self.rows);
            requests.send((last, WriteFlags::default())).await?;
        }
        if self.stage == Stage::Close {
            requests.close().await?;
        }
        Ok(())
    }
}

/// What the threads of the test share.
pub struct Field {
    pub addr: SocketAddr,
    pub env: Arc<Environment>,
    /// Clients that many uploads share, and so a connection.
    pub shared: Vec<Stub>,
    pub attempts: Mutex<Vec<Attempt>>,
}

/// With the server in a process of its own, as most are.
#[test]
fn cancelled_uploads_are_whole_or_absent() {
    let seed = seed("cancels");
    let count = variable("BILLSTREAM_TEST_CANCELS", 400);
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    // Some uploads are spooled, and scans give way often.
    let flags = ["--upload-memory-bytes", "8192", "--export-turn-ms", "5"];
    let served = Served::start(&db, &flags);
    let (whole, attempts) = cancel_uploads(served.addr, seed, count, count / 8);
    served.stop();
    check(&open(&db), &whole, &attempts);
}

/// With server and clients in one process, where gRPC has threads of one serve the other.
#[test]
fn cancelled_uploads_of_a_program_to_itself_are_whole_or_absent() {
    let seed = seed("cancels in process");
    let count = variable("BILLSTREAM_TEST_CANCELS", 400);
    let local = Local::start(|config| {
        config.upload_memory_bytes = 8 << 10;
        config.export_turn_ms = 5;
    });
    let (whole, attempts) = cancel_uploads(local.addr(), seed, count, 0);
    wait_for("all streams have ended", || local.server.streams_open() == 0);
    wait_for("no connection is in use", || local.server.connections_in_use() == 0);
    local.stop_and(|conn| check(conn, &whole, &attempts));
}

/// Even a complete upload is not created when its client left before the commit. Another process
/// has the database locked meanwhile, as the `sqlite3` shell may.
#[test]
fn a_cancel_while_the_writer_waits_creates_nothing() {
    const UPLOADS: usize = 20;
    let local = Local::start(|config| config.busy_timeout_ms = 60_000);
    let client = local.client();
    let lock = Connection::open(&local.db).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let calls: Vec<Upload> = (0..UPLOADS)
        .map(|i| {
            let (customer, rows) = (format!("left-{i}"), 1 + 30 * i);
            // Commits are taken at once, and the plain uploads after a moment.
            let ending = if i % 2 == 0 { Ending::Commit } else { Ending::Plain };
            let (way, stage, sent) = (Way::ClientCancel, Stage::Close, rows);
            let plan = Plan { customer, way, ending, stage, rows, sent };
            let mut call = client.bulk_create(plan.options()).unwrap();
            block_on(plan.send(&mut call)).unwrap();
            call
        })
        .collect();
    wait_for("all uploads are open", || local.server.streams_open() == UPLOADS);
    // Not needed for the promise: it only gives the writer the time to take them.
    std::thread::sleep(Duration::from_millis(100));
    drop(calls);
    wait_for("the server knows that they are cancelled", || local.server.streams_open() == 0);
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    upload(&client, "after", 1, None).unwrap();
    local.stop_and(|conn| {
        assert_sound(conn);
        assert_eq!(rows_by_customer(conn), HashMap::from([("after".to_owned(), 1)]));
    });
}

/// Uploads under load; the whole ones, and those that were cancelled.
fn cancel_uploads(
    addr: SocketAddr,
    seed: u64,
    count: u64,
    from_python_too: u64,
) -> (Vec<(String, usize)>, Vec<Attempt>) {
    let client = || Stub::new(&addr.to_string());
    let shared = vec![client(), client()];
    upload(&shared[0], LOAD, LOAD_ROWS, None).unwrap();
    let field = Field { addr, env: environment(), shared, attempts: Mutex::default() };
    let load = Load::start(&field);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        if from_python_too > 0 {
            scope.spawn(|| from_python(&field, seed, from_python_too));
        }
        for thread in 0..THREADS {
            let (field, next) = (&field, &next);
            let mut rng = Rng::new(seed ^ thread);
            scope.spawn(move || loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let attempt = one(field, number, &mut rng);
                field.attempts.lock().unwrap().push(attempt);
            });
        }
    });
    (load.stop(), field.attempts.into_inner().unwrap())
}

fn check(conn: &Connection, whole: &[(String, usize)], attempts: &[Attempt]) {
    assert_sound(conn);
    let stored = rows_by_customer(conn);
    whole.iter().for_each(|(customer, rows)| assert_eq!(stored.get(customer), Some(rows)));
    judge(attempts, &stored);
}

fn one(field: &Field, number: u64, rng: &mut Rng) -> Attempt {
    // A process costs a hundred times a call, so they are fewer.
    let way = match number % 20 {
        0 => Way::KillClient,
        1 => Way::KillImport,
        2..=6 => Way::Reset,
        7..=11 => Way::Finish,
        _ => Way::ClientCancel,
    };
    let plan = Plan::new(number, way, rng);
    match way {
        Way::Reset => cut(field, &plan, Cut::Reset, rng),
        Way::Finish => cut(field, &plan, Cut::Finish, rng),
        Way::KillClient => kill_client(field, &plan, rng),
        Way::KillImport => kill_import(field, &plan, rng),
        Way::ClientCancel | Way::Python => cancel(field, &plan, rng),
    }
}

/// The client drops either half of its call, which cancels it.
fn cancel(field: &Field, plan: &Plan, rng: &mut Rng) -> Attempt {
    let mut call =
        rng.pick(&[&field.shared[0], &field.shared[1]]).bulk_create(plan.options()).unwrap();
    block_on(plan.send(&mut call)).unwrap();
    std::thread::sleep(rng.moment(MOMENT_US));
    let (mut requests, mut result) = call;
    match rng.range(0, 2) {
        0 => drop(result),
        1 => requests.cancel(),
        _ => result.cancel(),
    }
    plan.attempt(false)
}

/// Prints the count of each outcome; panics when one is not allowed.
fn judge(attempts: &[Attempt], stored: &HashMap<String, usize>) {
    let mut counts: BTreeMap<(Way, Ending, &str), usize> = BTreeMap::new();
    let mut broken = Vec::new();
    for attempt in attempts {
        let found = stored.get(&attempt.customer).copied().unwrap_or(0);
        let outcome = match (attempt.was_complete(), found) {
            (false, 0) => "incomplete, absent",
            (true, 0) if !attempt.is_acknowledged => "complete, absent",
            (true, n) if n == attempt.rows && attempt.is_acknowledged => "complete, acknowledged",
            (true, n) if n == attempt.rows => "complete, in the database",
            _ => "BROKEN",
        };
        *counts.entry((attempt.way, attempt.ending, outcome)).or_default() += 1;
        if outcome == "BROKEN" {
            broken.push(format!(
                "{} ({:?}): {found} of {} invoices are there, commit sent: {}, half-closed: {}, \
                 acknowledged: {}",
                attempt.customer,
                attempt.ending,
                attempt.rows,
                attempt.commit_sent,
                attempt.half_closed,
                attempt.is_acknowledged
            ));
        }
    }
    println!("cancels: {} uploads", attempts.len());
    for ((way, ending, outcome), count) in &counts {
        println!(
            "  {:<13} {:<9} {outcome:<27} {count:>6}",
            format!("{way:?}"),
            format!("{ending:?}")
        );
    }
    assert!(
        broken.is_empty(),
        "{} uploads are neither whole nor absent as promised:\n{}",
        broken.len(),
        broken.join("\n")
    );
}
