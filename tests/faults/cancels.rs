//! Uploads that are cancelled at random moments are in the database whole or not at all, and not
//! at all unless the server had the whole upload.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use billstream::client::Stub;
use billstream::proto::report::ExportRequest;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, Environment, WriteFlags};
use rusqlite::Connection;

use crate::proxy::{Cut, Proxy};
use crate::python;
use crate::skip::skip;
use crate::support::{
    assert_sound, billstream, commit, commit_required, environment, invoice, open, options,
    payment, rows_by_customer, seed, send_rows, upload, variable, wait_for, Guarded, Local, Rng,
    Served, Upload,
};

/// Uploads under way at a time.
const THREADS: u64 = 6;
/// The longest a client waits at the moment it was told to go away, in microseconds.
const MOMENT_US: u64 = 3_000;
/// A customer that the load pays and exports.
const LOAD: &str = "load";
const LOAD_ROWS: usize = 3_000;

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
enum Stage {
    /// Some of the invoices.
    Part,
    /// All of them, and nothing after them.
    Rows,
    /// The commit, where there is one.
    Commit,
    /// The half-close: the upload is complete.
    Close,
}

const STAGES: [Stage; 4] = [Stage::Part, Stage::Rows, Stage::Commit, Stage::Close];

/// How a client goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ClientCancel,
    Reset,
    Finish,
    KillClient,
    KillImport,
    Python,
}

/// One upload, and how far its client may have come with it: never further than is said here.
struct Attempt {
    customer: String,
    way: Way,
    ending: Ending,
    rows: usize,
    commit_sent: bool,
    half_closed: bool,
    /// The client got the result.
    is_acknowledged: bool,
}

impl Attempt {
    /// Whether the server can have had the complete upload.
    fn was_complete(&self) -> bool {
        match self.ending {
            Ending::Plain => self.half_closed,
            Ending::Commit | Ending::Required => self.commit_sent,
        }
    }
}

/// What an upload is to do.
struct Plan {
    customer: String,
    way: Way,
    ending: Ending,
    stage: Stage,
    rows: usize,
    /// Invoices to send: all of them, but for [`Stage::Part`].
    sent: usize,
}

impl Plan {
    fn new(number: u64, way: Way, rng: &mut Rng) -> Plan {
        // Most are small, which is quickest at the writer; some are spooled to a file.
        let most = rng.pick(&[3, 3, 30, 300]);
        let rows = rng.range(1, most) as usize;
        // The dangerous one is likelier: all invoices are there, and only the half-close is not.
        let stage = rng.pick(&[Stage::Rows, STAGES[0], STAGES[1], STAGES[2], STAGES[3]]);
        let sent = if stage == Stage::Part { rng.range(0, rows as u64 - 1) as usize } else { rows };
        let ending = rng.pick(&[Ending::Plain, Ending::Plain, Ending::Commit, Ending::Required]);
        Plan { customer: format!("{way:?}-{number}"), way, ending, stage, rows, sent }
    }

    fn sends_commit(&self) -> bool {
        self.ending != Ending::Plain && matches!(self.stage, Stage::Commit | Stage::Close)
    }

    fn attempt(&self, is_acknowledged: bool) -> Attempt {
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

    fn options(&self) -> CallOption {
        if self.ending == Ending::Required {
            commit_required()
        } else {
            options()
        }
    }

    /// Goes as far as the stage. An error means that the connection is gone, which is planned.
    async fn send(&self, (requests, _): &mut Upload) -> grpcio::Result<()> {
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
struct Field {
    addr: SocketAddr,
    env: Arc<Environment>,
    /// Clients that many uploads share, and so a connection.
    shared: Vec<Stub>,
    attempts: Mutex<Vec<Attempt>>,
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

/// The connection is cut between a client and the server. The client may get its result first.
fn cut(field: &Field, plan: &Plan, how: Cut, rng: &mut Rng) -> Attempt {
    let proxy = Proxy::start(field.addr);
    let client = Stub::with_env(Arc::clone(&field.env), &proxy.addr());
    let mut call = client.bulk_create(plan.options()).unwrap();
    if plan.stage == Stage::Part {
        // In the middle of a send.
        let moment = rng.moment(MOMENT_US);
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(plan.send(&mut call)));
            std::thread::sleep(moment);
            proxy.cut(how);
        });
    } else {
        // OK to fail: nothing has cut the connection, but a loaded machine may refuse one.
        let _ = block_on(plan.send(&mut call));
        std::thread::sleep(rng.moment(MOMENT_US));
        proxy.cut(how);
    }
    let (requests, result) = call;
    let is_acknowledged = plan.stage == Stage::Close && block_on(result).is_ok();
    drop(requests);
    plan.attempt(is_acknowledged)
}

/// A client in a process of its own is killed: this test binary, see [`uploader`].
fn kill_client(field: &Field, plan: &Plan, rng: &mut Rng) -> Attempt {
    let stage = STAGES.iter().position(|stage| *stage == plan.stage).unwrap();
    let job = format!(
        "{} {} {:?} {stage} {} {}",
        field.addr, plan.customer, plan.ending, plan.rows, plan.sent
    );
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cancels::uploader", "--ignored", "--nocapture"])
        .env(JOB, job)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Guarded(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Half of them are killed on their way, the others where their stage ends.
    let mark = rng.pick(&[STARTED, SENT]);
    assert!(lines.any(|line| line == mark), "the uploader ended without {mark:?}");
    std::thread::sleep(rng.moment(MOMENT_US));
    child.kill();
    plan.attempt(false)
}

/// What [`kill_client`] hands to its child.
const JOB: &str = "BILLSTREAM_TEST_UPLOADER";
const STARTED: &str = "@started";
const SENT: &str = "@sent";

/// Not a test: the client that [`kill_client`] starts and kills.
#[test]
#[ignore = "the child of another test"]
fn uploader() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Vec<&str> = job.split(' ').collect();
    let plan = Plan {
        customer: job[1].to_owned(),
        way: Way::KillClient,
        ending: match job[2] {
            "Plain" => Ending::Plain,
            "Commit" => Ending::Commit,
            _ => Ending::Required,
        },
        stage: STAGES[job[3].parse::<usize>().unwrap()],
        rows: job[4].parse().unwrap(),
        sent: job[5].parse().unwrap(),
    };
    let client = Stub::new(job[0]);
    let mut call = client.bulk_create(plan.options()).unwrap();
    // On a line of its own, whatever the test harness has printed.
    println!("\n{STARTED}");
    block_on(plan.send(&mut call)).unwrap();
    println!("\n{SENT}");
    // Until it is killed, or its parent is.
    let _ = std::io::stdin().read(&mut [0]);
    std::process::abort();
}

/// `billstream import` is killed. Half of them are held by the proxy before the commit, the others
/// may get through.
fn kill_import(field: &Field, plan: &Plan, rng: &mut Rng) -> Attempt {
    let rows = 50 * plan.rows;
    let file = csv(&plan.customer, rows);
    let proxy = Proxy::start(field.addr);
    let is_held = rng.range(0, 1) == 0;
    if is_held {
        // A row has over 30 bytes on the wire, so this ends before the last one.
        proxy.forward_at_most(rng.range(1, 30 * rows as u64));
    }
    let child = billstream()
        .args([
            "import",
            "--retry-for-secs",
            "0",
            "--batch-id",
            &plan.customer,
            "--addr",
            &proxy.addr(),
        ])
        .arg(file.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Guarded(child);
    if is_held {
        wait_for("the import is held", || proxy.is_holding());
        std::thread::sleep(rng.moment(MOMENT_US));
    } else {
        wait_for("the import has begun", || proxy.answered() > 0);
        std::thread::sleep(rng.moment(5 * MOMENT_US));
    }
    child.kill();
    Attempt {
        customer: plan.customer.clone(),
        way: Way::KillImport,
        ending: Ending::Required,
        rows,
        commit_sent: !is_held,
        half_closed: !is_held,
        is_acknowledged: false,
    }
}

/// A file for `import`.
fn csv(customer: &str, rows: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut text = "invoice_id,customer_id,total_amount_cents,currency,issued_at,memo\n".to_owned();
    for i in 0..rows {
        let invoice = invoice(customer, i);
        text += &format!(
            "{},{customer},{},{},2024-01-02T03:04:05Z,{}\n",
            invoice.invoice_id, invoice.total_amount_cents, invoice.currency, invoice.memo
        );
    }
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Python's own client cancels uploads; it says of each what it did.
fn from_python(field: &Field, seed: u64, count: u64) {
    let python = match python::ready() {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let output = python
        .script("cancel.py")
        .args([field.addr.to_string(), seed.to_string(), count.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cancel.py ended with {}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    let attempts: Vec<Attempt> = lines.lines().map(python_attempt).collect();
    assert_eq!(attempts.len() as u64, count);
    field.attempts.lock().unwrap().extend(attempts);
}

/// `CUSTOMER ENDING ROWS COMMIT_SENT HALF_CLOSED ACKNOWLEDGED`
fn python_attempt(line: &str) -> Attempt {
    let words: Vec<&str> = line.split(' ').collect();
    Attempt {
        customer: words[0].to_owned(),
        way: Way::Python,
        ending: match words[1] {
            "plain" => Ending::Plain,
            "commit" => Ending::Commit,
            _ => Ending::Required,
        },
        rows: words[2].parse().unwrap(),
        commit_sent: words[3] == "1",
        half_closed: words[4] == "1",
        is_acknowledged: words[5] == "1",
    }
}

/// Exports, reconciles and uploads that nobody cancels, so that the news of a cancel comes late.
struct Load {
    is_over: Arc<AtomicBool>,
    readers: Vec<std::thread::JoinHandle<()>>,
    uploader: std::thread::JoinHandle<Vec<(String, usize)>>,
}

impl Load {
    fn start(field: &Field) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let client =
            |over: &Arc<AtomicBool>| (Stub::new(&field.addr.to_string()), Arc::clone(over));
        let mut readers = Vec::new();
        for _ in 0..2 {
            let (client, over) = client(&is_over);
            readers.push(std::thread::spawn(move || export_until(&client, &over)));
        }
        for thread in 0..2 {
            let (client, over) = client(&is_over);
            readers.push(std::thread::spawn(move || reconcile_until(&client, &over, thread)));
        }
        let over = Arc::clone(&is_over);
        // On a connection with uploads that are cancelled.
        let client = field.shared[0].clone();
        let uploader = std::thread::spawn(move || upload_until(&client, &over));
        Load { is_over, readers, uploader }
    }

    /// The uploads that were acknowledged.
    fn stop(self) -> Vec<(String, usize)> {
        self.is_over.store(true, Ordering::Relaxed);
        self.readers.into_iter().for_each(|thread| thread.join().unwrap());
        self.uploader.join().unwrap()
    }
}

fn export_until(client: &Stub, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let request = ExportRequest { customer_id: LOAD.to_owned(), ..ExportRequest::default() };
        let mut batches = client.export_invoice_batches(&request, options()).unwrap();
        let mut rows = 0;
        while let Some(batch) = block_on(batches.next()) {
            rows += batch.unwrap().invoices.len();
        }
        assert_eq!(rows, LOAD_ROWS);
    }
}

fn reconcile_until(client: &Stub, over: &AtomicBool, thread: usize) {
    let (mut events, mut acks) = client.reconcile(CallOption::default()).unwrap();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let event = payment(format!("load-{thread}-{sent}"), LOAD, sent % LOAD_ROWS, 1);
        // Why a send failed is in what comes back.
        let _ = block_on(events.send((event, WriteFlags::default())));
        block_on(acks.next()).expect("an acknowledgement or an error").unwrap();
        sent += 1;
    }
    block_on(events.close()).unwrap();
    assert!(block_on(acks.next()).is_none());
}

fn upload_until(client: &Stub, over: &AtomicBool) -> Vec<(String, usize)> {
    let mut whole = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let customer = format!("whole-{}", whole.len());
        let rows = 1 + whole.len() % 20;
        let batch_id = (whole.len() % 2 == 0).then_some(&customer[..]);
        let result = upload(client, &customer, rows, batch_id).unwrap();
        assert_eq!(result.created_count, rows as i64);
        whole.push((customer, rows));
    }
    whole
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
