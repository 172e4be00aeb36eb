//! What the fault tests share.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::{BulkCommit, BulkResult, CreateInvoiceRequest, ReconcileEvent};
use billstream::{Config, Server};
use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{
    CallOption, ChannelBuilder, ClientCStreamReceiver, ClientCStreamSender, EnvBuilder,
    Environment, MetadataBuilder, RpcStatusCode, WriteFlags,
};
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::MessageField;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// The longest that anything may take here. Reached only when something hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// SplitMix64: enough to choose moments by.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() as u64 - 1) as usize]
    }

    /// A moment up to `most_us` away; short ones are likelier.
    pub fn moment(&mut self, most_us: u64) -> Duration {
        let most = self.range(0, most_us);
        Duration::from_micros(self.range(0, most))
    }
}

/// The seed of this run, printed so that the run can be repeated.
pub fn seed(test: &str) -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = variable("BILLSTREAM_TEST_SEED", now);
    println!("{test}: BILLSTREAM_TEST_SEED={seed}");
    seed
}

/// A number that the environment may set.
pub fn variable(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")),
        Err(_) => default,
    }
}

/// Waits for `is_so`; panics when it has not come true in time.
pub fn wait_for(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for this: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

/// A server in this process, with a database of its own.
pub struct Local {
    pub server: Server,
    pub db: PathBuf,
    _dir: TempDir,
}

impl Local {
    pub fn start(change: impl FnOnce(&mut Config)) -> Local {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("bills.db");
        let mut config =
            Config { db: db.clone(), listen: vec!["127.0.0.1:0".to_owned()], ..Config::default() };
        // All tests of a process are one host to the C core, and some cancel hundreds of streams.
        config.max_resets_per_second = 1_000_000;
        change(&mut config);
        Local { server: Server::start(config).unwrap(), db, _dir: dir }
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    pub fn client(&self) -> Stub {
        Stub::new(&self.addr().to_string())
    }

    /// A client with a window of 64 KiB a stream, which gRPC would enlarge to megabytes.
    pub fn slow_client(&self) -> Stub {
        let builder = ChannelBuilder::new(environment()).http2_bdp_probe(false);
        let builder = builder.use_local_subchannel_pool(true);
        Stub::with_channel(builder.connect(&self.addr().to_string()))
    }

    /// Stops the server, and gives the database to `look` when nothing changes it any more.
    pub fn stop_and<T>(self, look: impl FnOnce(&Connection) -> T) -> T {
        self.server.shutdown().unwrap();
        look(&open(&self.db))
    }
}

/// A child that does not outlive its owner.
pub struct Guarded(pub Child);

impl Guarded {
    pub fn kill(&mut self) {
        // OK to fail: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `billstream serve` in a process of its own.
pub struct Served {
    pub addr: SocketAddr,
    child: Guarded,
    /// Kept so that the child never writes into a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Served {
    /// `flags` are further flags of `serve`.
    pub fn start(db: &Path, flags: &[&str]) -> Served {
        Served::start_with(db, flags, |_| ())
    }

    /// The same, with a change of how it is started.
    pub fn start_with(db: &Path, flags: &[&str], change: impl FnOnce(&mut Command)) -> Served {
        let mut command = billstream();
        change(&mut command);
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--db"])
            .arg(db)
            .args(flags)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let child = Guarded(child);
        let mut line = String::new();
        // Ends, with an empty line, when the child ends.
        stdout.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ");
        let addr = addr.unwrap_or_else(|| panic!("`billstream serve` says {line:?}"));
        Served { addr: addr.parse().unwrap(), child, _stdout: stdout }
    }

    /// The most memory that it has had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill();
    }

    /// SIGTERM: ends with code 0 after what is under way.
    pub fn stop(mut self) {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let status = self.child.0.wait().unwrap();
        assert!(status.success(), "`billstream serve` ended with {status}");
    }
}

pub fn billstream() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_billstream"));
    // What is set around the tests is not to reach the program.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BILLSTREAM_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// The completion-queue threads of many clients.
pub fn environment() -> Arc<Environment> {
    Arc::new(EnvBuilder::new().cq_count(1).name_prefix("test-client").build())
}

/// Options of a call that fails rather than hangs.
pub fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

/// The same for an upload that announces its commit.
pub fn commit_required() -> CallOption {
    let mut headers = MetadataBuilder::new();
    headers.add_str("billstream-commit", "required").unwrap();
    options().headers(headers.build())
}

/// Invoice number `i` of an upload. The upload is known in the database by its `customer`.
pub fn invoice(customer: &str, i: usize) -> CreateInvoiceRequest {
    CreateInvoiceRequest {
        invoice_id: format!("{customer}-{i}"),
        customer_id: customer.to_owned(),
        total_amount_cents: 100 + i as i64,
        currency: ["EUR", "USD", "JPY"][i % 3].to_owned(),
        issued_at: MessageField::some(Timestamp { seconds: 1_700_000_000, ..Timestamp::default() }),
        memo: "m".repeat(i * 37 % 300),
        ..CreateInvoiceRequest::default()
    }
}

pub fn commit(batch_id: &str, rows: usize) -> CreateInvoiceRequest {
    let commit =
        BulkCommit { batch_id: batch_id.to_owned(), count: rows as i64, ..BulkCommit::default() };
    CreateInvoiceRequest { commit: MessageField::some(commit), ..CreateInvoiceRequest::default() }
}

/// An open upload.
pub type Upload = (ClientCStreamSender<CreateInvoiceRequest>, ClientCStreamReceiver<BulkResult>);

/// Sends the invoices in `rows` of an upload.
pub async fn send_rows(
    requests: &mut ClientCStreamSender<CreateInvoiceRequest>,
    customer: &str,
    rows: std::ops::Range<usize>,
) -> grpcio::Result<()> {
    for i in rows {
        requests.send((invoice(customer, i), WriteFlags::default())).await?;
    }
    Ok(())
}

/// A whole upload of `rows` invoices; with a `batch_id` it ends in a commit.
pub fn upload(
    client: &Stub,
    customer: &str,
    rows: usize,
    batch_id: Option<&str>,
) -> grpcio::Result<BulkResult> {
    let options = if batch_id.is_some() { commit_required() } else { options() };
    let (mut requests, result) = client.bulk_create(options)?;
    let send = async {
        send_rows(&mut requests, customer, 0..rows).await?;
        if let Some(batch_id) = batch_id {
            requests.send((commit(batch_id, rows), WriteFlags::default())).await?;
        }
        requests.close().await
    };
    // A failed send only says that the call is over: how it ended is in the result.
    let _ = block_on(send);
    block_on(result)
}

/// An event that pays `cents` of invoice `i` of an upload.
pub fn payment(event_id: String, customer: &str, i: usize, cents: i64) -> ReconcileEvent {
    let invoice = invoice(customer, i);
    ReconcileEvent {
        event_id,
        invoice_id: invoice.invoice_id,
        amount_cents: cents,
        currency: invoice.currency,
        received_at: invoice.issued_at,
        ..ReconcileEvent::default()
    }
}

pub fn code(error: &grpcio::Error) -> Option<RpcStatusCode> {
    match error {
        grpcio::Error::RpcFailure(status) => Some(status.code()),
        grpcio::Error::RpcFinished(Some(status)) => Some(status.code()),
        _ => None,
    }
}

/// The database file, as someone beside the server sees it.
pub fn open(db: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(db, flags).unwrap();
    conn.busy_timeout(DEADLINE).unwrap();
    conn.pragma_update(None, "query_only", true).unwrap();
    conn
}

/// The number of invoices of each customer, and so of each upload.
pub fn rows_by_customer(conn: &Connection) -> HashMap<String, usize> {
    let mut query =
        conn.prepare("SELECT customer_id, count(*) FROM invoices GROUP BY customer_id").unwrap();
    let rows =
        query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Panics unless the file is sound, and every kept total is that of the rows.
pub fn assert_sound(conn: &Connection) {
    let verdict: String =
        conn.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "integrity_check");
    let sums = "count(*), sum(total_amount_cents), sum(paid_cents)";
    let kept = "invoice_count, total_cents, paid_cents";
    for (table, key) in
        [("currency_totals", "currency"), ("customer_totals", "customer_id, currency")]
    {
        let of_rows = format!("SELECT {key}, {sums} FROM invoices GROUP BY {key}");
        let of_table = format!("SELECT {key}, {kept} FROM {table}");
        for (a, b) in [(&of_rows, &of_table), (&of_table, &of_rows)] {
            let query = format!("SELECT count(*) FROM ({a} EXCEPT {b})");
            let differ: i64 = conn.query_row(&query, [], |row| row.get(0)).unwrap();
            assert_eq!(differ, 0, "{table} differs from the sums of the invoices");
        }
    }
}
