//! What is measured, and how one measurement goes.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use compare::client::{Failure, Guard};
use compare::load::{self, Outcome, Unary};
use compare::proto::report_service_client::ReportServiceClient;
use compare::proto::ExportRequest;

use crate::data::Data;
use crate::limits::{self, Limit};
use crate::server::{Program, Server};

/// How much of everything a run does.
pub struct Scale {
    pub rounds: usize,
    pub duration: Duration,
    /// At 100 calls a second it takes a while to know a p99.
    pub open_loop: Duration,
    /// Invoices in the database that is read, and in the one that is written.
    pub read_base: usize,
    pub write_base: usize,
    /// Rows of an export.
    pub export_rows: i64,
    /// Rows of an export to a real client, which takes longer over each.
    pub client_rows: i64,
    /// Rows of the one large upload.
    pub upload_rows: usize,
    /// Events of the pipelining client.
    pub events: usize,
    pub guarded_runs: usize,
    pub growth: &'static [usize],
}

/// A row of a table: a server, or the same work without one.
#[derive(Clone)]
pub enum Subject {
    Server(Program),
    Limit(&'static str, LimitKind),
}

#[derive(Clone, Copy, PartialEq)]
pub enum LimitKind {
    Scan,
    Inserts,
    Commits,
    Syncs,
}

impl Subject {
    pub fn name(&self) -> &str {
        match self {
            Subject::Server(program) => program.name,
            Subject::Limit(name, _) => name,
        }
    }
}

/// A table.
pub struct Scenario {
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// What the latency is of.
    pub latency_of: &'static str,
    pub load: Load,
    pub limits: &'static [(&'static str, LimitKind)],
}

#[derive(Clone, Copy)]
pub enum Load {
    Export { batched: bool },
    Unary(fn() -> Unary, usize),
    BulkCreate,
    Uploaders,
    Reconcile,
    Pipeline,
    OpenLoop,
    BesideExports,
    Stalled,
    Guarded,
    Tonic { batched: bool },
    Grpcio { batched: bool },
    GrpcioReconcile,
    Idle,
}

impl Load {
    /// Whether the server of constants can be asked the same.
    pub fn has_ceiling(&self) -> bool {
        match self {
            Load::Unary(call, _) => call().method != "ListInvoices",
            Load::Export { batched } => !batched,
            Load::Stalled | Load::Idle => true,
            _ => false,
        }
    }
}

const SCAN: (&str, LimitKind) = ("limit: scan and encode", LimitKind::Scan);
const INSERTS: (&str, LimitKind) = ("limit: SQLite inserts", LimitKind::Inserts);
const COMMITS: (&str, LimitKind) = ("limit: durable commits", LimitKind::Commits);
const SYNCS: (&str, LimitKind) = ("limit: fdatasync", LimitKind::Syncs);

pub const EVENT_COLUMNS: &str = "event_id,invoice_id,amount_cents,currency,received_at,reference\n";

/// Every table of the report, in its order.
pub const SCENARIOS: &[Scenario] = &[
    table("ExportInvoiceBatches", "rows", "first batch", Load::Export { batched: true }, &[SCAN]),
    table("ExportInvoices", "rows", "first row", Load::Export { batched: false }, &[SCAN]),
    table("ExportInvoices of one row", "calls", "call", Load::Unary(Unary::first_row, 1), &[]),
    table("GetSummary, 1 caller", "calls", "call", Load::Unary(Unary::summary, 1), &[]),
    table("GetSummary, 10 callers", "calls", "call", Load::Unary(Unary::summary, 10), &[]),
    table("GetSummary, 100 callers", "calls", "call", Load::Unary(Unary::summary, 100), &[]),
    table("ListInvoices of 100, 1 caller", "calls", "call", Load::Unary(Unary::list, 1), &[]),
    table("ListInvoices of 100, 10 callers", "calls", "call", Load::Unary(Unary::list, 10), &[]),
    table("ListInvoices of 100, 100 callers", "calls", "call", Load::Unary(Unary::list, 100), &[]),
    table("BulkCreate, one large upload", "rows", "upload", Load::BulkCreate, &[INSERTS]),
    table("BulkCreate, 16 clients", "uploads of 100", "upload", Load::Uploaders, &[COMMITS, SYNCS]),
    table("Reconcile, 64 clients", "acks", "ack", Load::Reconcile, &[COMMITS, SYNCS]),
    table("Reconcile, pipelining", "acks", "first ack", Load::Pipeline, &[]),
    table("GetSummary, 100 a second", "calls", "call as planned", Load::OpenLoop, &[]),
    table(
        "GetSummary, 100 a second beside 8 exports",
        "calls",
        "call as planned",
        Load::BesideExports,
        &[],
    ),
    table("100 stalled exports", "exports open", "GetSummary meanwhile", Load::Stalled, &[]),
    table("h2's default guard", "exports that survive", "-", Load::Guarded, &[]),
    table("tonic client, rows", "rows", "-", Load::Tonic { batched: false }, &[]),
    table("tonic client, batches", "rows", "-", Load::Tonic { batched: true }, &[]),
    table("grpcio client, rows", "rows", "-", Load::Grpcio { batched: false }, &[]),
    table("grpcio client, batches", "rows", "-", Load::Grpcio { batched: true }, &[]),
    table("grpcio client, reconcile", "acks", "-", Load::GrpcioReconcile, &[]),
    table("Idle", "start-ups", "start to first answer", Load::Idle, &[]),
];

const fn table(
    name: &'static str,
    unit: &'static str,
    latency_of: &'static str,
    load: Load,
    limits: &'static [(&'static str, LimitKind)],
) -> Scenario {
    Scenario { name, unit, latency_of, load, limits }
}

/// What one measurement gave; what does not apply is absent.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub per_second: Option<f64>,
    /// Server CPU in microseconds an operation.
    pub cpu: Option<f64>,
    /// Latencies in microseconds.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    /// The most memory in KiB, and the threads, of the server meanwhile.
    pub peak: Option<f64>,
    pub threads: Option<f64>,
    /// Bytes and DATA frames on the wire an operation.
    pub bytes: Option<f64>,
    pub frames: Option<f64>,
    /// The share of the frames that are under 256 bytes.
    pub small: Option<f64>,
    /// The share of an upload's time after its last message was taken.
    pub creating: Option<f64>,
}

impl Sample {
    fn of(outcome: &Outcome, cpu: Option<Duration>) -> Sample {
        let operations = outcome.operations.max(1) as f64;
        let latency = &outcome.latency;
        // A percentile of fewer samples than it takes would be only the largest of them.
        let at = |quantile: f64, least: u64| {
            let micros = latency.value_at_quantile(quantile) as f64 / 1e3;
            (latency.len() >= least).then_some(micros)
        };
        let tally = &outcome.tally;
        let counted = |n: u64| (n > 0).then(|| n as f64 / operations);
        Sample {
            per_second: Some(outcome.operations as f64 / outcome.seconds),
            cpu: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / operations),
            p50: at(0.5, 1),
            p99: at(0.99, 100),
            p999: at(0.999, 1000),
            bytes: counted(tally.bytes),
            frames: counted(tally.frames),
            small: (tally.frames > 0).then(|| tally.small_frames as f64 / tally.frames as f64),
            ..Sample::default()
        }
    }

    pub fn of_limit(limit: &Limit) -> Sample {
        let operations = limit.operations.max(1) as f64;
        Sample {
            per_second: Some(operations / limit.seconds),
            cpu: limit.cpu.map(|seconds| seconds * 1e6 / operations),
            ..Sample::default()
        }
    }
}

pub struct Bench {
    pub data: Data,
    pub scale: Scale,
}

impl Bench {
    pub fn measure(&self, scenario: &Scenario, subject: &Subject) -> Result<Sample, String> {
        match subject {
            Subject::Limit(_, kind) => {
                let limit = self.limit(*kind).map_err(|error| error.to_string())?;
                Ok(Sample::of_limit(&limit))
            }
            Subject::Server(program) => self.serve(scenario.load, program),
        }
    }

    fn limit(&self, kind: LimitKind) -> crate::data::Result<Limit> {
        let (data, scale) = (&self.data, &self.scale);
        match kind {
            LimitKind::Scan => {
                limits::scan_and_encode(&data.base(scale.read_base)?, scale.export_rows)
            }
            LimitKind::Inserts => limits::raw_inserts(data, scale.write_base, scale.upload_rows),
            LimitKind::Commits => limits::commits(data, scale.duration),
            LimitKind::Syncs => limits::syncs(data, scale.duration),
        }
    }

    /// The databases that a program serves.
    pub fn data_of(&self, program: &Program) -> Data {
        match program.name {
            crate::BILLSTREAM => self.data.upgraded(),
            _ => self.data.clone(),
        }
    }

    pub fn start(&self, program: &Program, db: &std::path::Path) -> Result<Server, String> {
        let takes_db = program.name != crate::CEILING;
        let log = self.data.directory.join(format!("{}.log", program.name));
        Server::start(program, takes_db.then_some(db), &log)
    }

    fn serve(&self, load: Load, program: &Program) -> Result<Sample, String> {
        let writes = matches!(
            load,
            Load::BulkCreate
                | Load::Uploaders
                | Load::Reconcile
                | Load::Pipeline
                | Load::GrpcioReconcile
        );
        let db = match writes {
            true => self.data_of(program).copy(self.scale.write_base),
            false => self.data_of(program).base(self.scale.read_base),
        };
        let server = self.start(program, &db.map_err(|error| error.to_string())?)?;
        let fail = |failure: Failure| match failure.code {
            Some(code) => format!("status {code}: {}", failure.message),
            None => failure.message,
        };
        if matches!(load, Load::Idle) {
            return Ok(idle(&server));
        }
        load::run(self.warm_up(load, server.address)).map_err(fail)?;
        server.reset_peak();
        let before = server.cpu();
        if matches!(load, Load::Stalled) {
            return load::run(stalled(&server)).map_err(fail);
        }
        let outcome = self.load(load, server.address).map_err(fail)?;
        let cpu = server.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        let mut sample = Sample::of(&outcome, cpu);
        if matches!(load, Load::Guarded) {
            sample.per_second = Some(outcome.operations as f64);
        }
        sample.peak = server.status("VmHWM");
        sample.threads = server.status("Threads");
        Ok(sample)
    }

    /// A small load of the same kind, so that caches are filled, threads are started and
    /// statements are prepared.
    async fn warm_up(&self, load: Load, address: SocketAddr) -> Result<(), Failure> {
        let short = Duration::from_millis(100);
        match load {
            Load::Unary(call, callers) => load::unary(address, call(), callers, short).await?,
            Load::BulkCreate | Load::Uploaders => load::bulk_create(address, 100).await?,
            Load::Reconcile => load::reconcile(address, 64, short).await?,
            Load::Pipeline | Load::GrpcioReconcile => load::pipeline(address, 100).await?,
            Load::OpenLoop | Load::BesideExports => {
                load::unary(address, Unary::summary(), 1, short).await?
            }
            Load::Export { batched } | Load::Tonic { batched } | Load::Grpcio { batched } => {
                load::export(address, batched, self.scale.export_rows / 10).await?
            }
            Load::Stalled | Load::Guarded | Load::Idle => return Ok(()),
        };
        Ok(())
    }

    fn load(&self, load: Load, address: SocketAddr) -> Result<Outcome, Failure> {
        let scale = &self.scale;
        match load {
            Load::Tonic { batched } => return tonic_client(address, batched, scale.client_rows),
            Load::Grpcio { batched } => return self.grpcio_export(address, batched),
            Load::GrpcioReconcile => return self.grpcio_reconcile(address),
            Load::Guarded => return Ok(self.guarded(address)),
            _ => {}
        }
        load::run(async {
            match load {
                Load::Export { batched } => load::export(address, batched, scale.export_rows).await,
                Load::Unary(call, callers) => {
                    load::unary(address, call(), callers, scale.duration).await
                }
                Load::BulkCreate => load::bulk_create(address, scale.upload_rows).await,
                Load::Uploaders => load::uploaders(address, 16, 100, scale.duration).await,
                Load::Reconcile => load::reconcile(address, 64, scale.duration).await,
                Load::Pipeline => load::pipeline(address, scale.events).await,
                Load::OpenLoop => {
                    load::open_loop(address, Unary::summary(), 100, scale.open_loop).await
                }
                _ => {
                    let call = Unary::summary();
                    load::beside_exports(address, call, 8, 100, scale.open_loop).await
                }
            }
        })
    }

    /// How many of some exports reach their end although h2 guards against small frames.
    fn guarded(&self, address: SocketAddr) -> Outcome {
        let mut sum = Outcome::default();
        let start = Instant::now();
        for _ in 0..self.scale.guarded_runs {
            let rows = self.scale.export_rows;
            match load::run(load::export_with(address, false, rows, Guard::Default)) {
                Ok(outcome) => {
                    sum.operations += 1;
                    sum.tally.add(outcome.tally);
                }
                Err(failure) => eprintln!("    cut off: {}", failure.message),
            }
        }
        sum.lasted(start)
    }

    fn grpcio_export(&self, address: SocketAddr, batched: bool) -> Result<Outcome, Failure> {
        let rows = self.scale.client_rows;
        let rows_text = rows.to_string();
        let mut arguments = vec!["export", "--max-rows", &rows_text];
        arguments.extend(batched.then_some("--batched"));
        self.command_line(address, &arguments, rows as u64)
    }

    /// Payments of one cent, sent as fast as the C core sends messages: each in a frame of its own.
    fn grpcio_reconcile(&self, address: SocketAddr) -> Result<Outcome, Failure> {
        let fail = |message: String| Failure { code: None, message };
        let path = self.data.directory.join("events.csv");
        let write = || -> crate::data::Result<()> {
            let mut csv = String::from(EVENT_COLUMNS);
            let targets = crate::data::ids(&self.data.base(self.scale.write_base)?, 1000)?;
            for n in 0..self.scale.events {
                let (invoice_id, currency, _) = &targets[n % targets.len()];
                csv += &format!("event-{n},{invoice_id},1,{currency},2024-01-01T00:00:00Z,\n");
            }
            Ok(std::fs::write(&path, csv)?)
        };
        write().map_err(|error| fail(error.to_string()))?;
        let path = path.to_string_lossy();
        self.command_line(address, &["reconcile", &path], self.scale.events as u64)
    }

    /// billstream's own command line as a client, from its start to its end.
    fn command_line(
        &self,
        address: SocketAddr,
        arguments: &[&str],
        operations: u64,
    ) -> Result<Outcome, Failure> {
        let mut command = Command::new(&self.data.billstream);
        command.args(arguments).args(["--addr", &address.to_string()]);
        let start = Instant::now();
        let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
        let error = match output {
            Ok(output) if output.status.success() => {
                return Ok(Outcome { operations, ..Outcome::default() }.lasted(start));
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "),
            Err(error) => error.to_string(),
        };
        Err(Failure { code: None, message: error })
    }
}

/// A process that has answered one call and has nothing to do.
fn idle(server: &Server) -> Sample {
    Sample {
        p50: Some(server.started_in.as_secs_f64() * 1e6),
        peak: server.status("VmRSS"),
        threads: server.status("Threads"),
        ..Sample::default()
    }
}

/// Memory and threads while 100 exports hang, and whether another call is answered meanwhile.
async fn stalled(server: &Server) -> Result<Sample, Failure> {
    let (held, without_row) = load::stall(server.address, 100).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (peak, threads) = (server.status("VmRSS"), server.status("Threads"));
    let calls = load::unary(server.address, Unary::summary(), 1, Duration::from_millis(200));
    let calls = tokio::time::timeout(Duration::from_secs(2), calls).await;
    let p50 = match calls {
        Ok(outcome) => Some(outcome?.latency.value_at_quantile(0.5) as f64 / 1e3),
        Err(_) => None,
    };
    let flowing = (held.len() - without_row) as f64;
    Ok(Sample { per_second: Some(flowing), p50, peak, threads, ..Sample::default() })
}

/// tonic's own client, which decodes every row, on a runtime as `#[tokio::main]` has it.
fn tonic_client(address: SocketAddr, batched: bool, max_rows: i64) -> Result<Outcome, Failure> {
    let export = async move {
        let fail = |message: String| Failure { code: None, message };
        let client = ReportServiceClient::connect(format!("http://{address}")).await;
        let mut client = client.map_err(|error| fail(error.to_string()))?;
        let mut outcome = Outcome::default();
        let start = Instant::now();
        let request = ExportRequest { max_rows, ..Default::default() };
        let status = |status: tonic::Status| fail(status.to_string());
        if batched {
            let batches = client.export_invoice_batches(request).await.map_err(status)?;
            let mut batches = batches.into_inner();
            while let Some(batch) = batches.message().await.map_err(status)? {
                outcome.operations += std::hint::black_box(batch).invoices.len() as u64;
            }
        } else {
            let mut rows = client.export_invoices(request).await.map_err(status)?.into_inner();
            while let Some(row) = rows.message().await.map_err(status)? {
                std::hint::black_box(row);
                outcome.operations += 1;
            }
        }
        Ok(outcome.lasted(start))
    };
    // OK because without an epoll descriptor nothing can be measured.
    tokio::runtime::Runtime::new().expect("a runtime starts").block_on(export)
}
