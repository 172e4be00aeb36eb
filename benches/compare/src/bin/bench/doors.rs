//! What people get who do not write a client of their own: Python's gRPC, and billstream's command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::data::{self, Result};
use crate::limits;
use crate::report::{human, promise, Bound, Promise, Row, Spread};
use crate::scenario::{Bench, Sample};
use crate::server::Program;
use crate::HERE;

/// Rows or payments of each measurement.
const ROWS: usize = 100_000;
const PYTHON_BATCH: usize = 500;
const INSERTS: &str = "limit: SQLite inserts";
const RECONCILE: &str = "billstream reconcile";
const OLD_RECONCILE: &str = "billstream reconcile, of --old";

/// One row for each way in, with a sample a round.
#[derive(Default)]
pub struct Doors {
    rows: Vec<Row>,
}

impl Doors {
    pub fn measure(bench: &Bench, server: &Program, old: Option<&Path>) -> Doors {
        let mut doors = Doors::default();
        // Once: a message a row takes Python up to half a minute.
        match Python::ready(&bench.data.directory) {
            Ok(python) => {
                doors.add("Python, BulkCreate", python.upload(bench, server, 0));
                doors.add("Python, BulkCreateBatches", python.upload(bench, server, PYTHON_BATCH));
            }
            Err(why) => eprintln!("Python's gRPC is not measured: {why}"),
        }
        let old = old.map(|path| Program { path: path.to_owned(), ..server.clone() });
        for _ in 0..bench.scale.rounds {
            let inserts = limits::raw_inserts(&bench.data, bench.scale.write_base, ROWS);
            doors.add(INSERTS, inserts.map(|limit| limit.operations as f64 / limit.seconds));
            doors.add("billstream import", import(bench, server));
            if let Some(old) = &old {
                doors.add(OLD_RECONCILE, reconcile(bench, old));
            }
            doors.add(RECONCILE, reconcile(bench, server));
        }
        doors
    }

    fn add(&mut self, subject: &str, per_second: Result<f64>) {
        let known = self.rows.iter().position(|row| row.subject == subject);
        let place = known.unwrap_or_else(|| {
            let subject = subject.to_owned();
            self.rows.push(Row { subject, samples: Vec::new(), failures: Vec::new() });
            self.rows.len() - 1
        });
        match per_second {
            Ok(rate) => {
                let sample = Sample { per_second: Some(rate), ..Sample::default() };
                self.rows[place].samples.push(sample);
            }
            Err(error) => {
                eprintln!("    {subject}: {error}");
                self.rows[place].failures.push(error.to_string());
            }
        }
    }

    pub fn markdown(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut text = format!("\n## Doors\n\n{ROWS} rows or payments, from the start of the client to its end (of Python, without its start).\n\n");
        text += "| | a second |\n|---|---:|\n";
        for row in &self.rows {
            let rate = match row.spread(|s| s.per_second) {
                Some(Spread { median, least, most }) => {
                    format!("**{}** ({}–{})", human(median), human(least), human(most))
                }
                None => row.failures.first().map_or("-".to_owned(), |why| format!("failed: {why}")),
            };
            text += &format!("| {} | {rate} |\n", row.subject);
        }
        text
    }

    /// The ratios that the project promises of them.
    pub fn promises(&self) -> Vec<Promise> {
        let rate = |subject: &str| {
            let row = self.rows.iter().find(|row| row.subject == subject)?;
            row.spread(|s| s.per_second).map(|spread| spread.median)
        };
        [
            ("Python, BulkCreateBatches", "Python, BulkCreate", 20.0),
            ("billstream import", INSERTS, 0.7),
            (RECONCILE, OLD_RECONCILE, 4.0),
        ]
        .into_iter()
        .filter(|(ours, ..)| self.rows.iter().any(|row| row.subject == *ours))
        .map(|(ours, other, bound)| {
            promise(format!("{ours} / {other}"), rate(ours), rate(other), Bound::AtLeast(bound))
        })
        .collect()
    }
}

/// Runs a command; its last words when it fails, and what it printed when it does not.
fn run(command: &mut Command) -> Result<String> {
    let name = format!("{:?}", command.get_program());
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(format!("{name}: {}: {last}", output.status).into())
}

/// Rows a second of a command of the program against its own server, over a fresh copy.
fn command_line(bench: &Bench, program: &Program, command: &str, file: &Path) -> Result<f64> {
    let server = bench.start(program, &bench.data.copy(bench.scale.write_base)?)?;
    let start = Instant::now();
    let mut client = Command::new(&program.path);
    run(client.arg(command).arg(file).args(["--addr", &server.address.to_string()]))?;
    Ok(ROWS as f64 / start.elapsed().as_secs_f64())
}

/// Generated invoices under ids that the database does not have.
fn import(bench: &Bench, server: &Program) -> Result<f64> {
    let path = bench.data.directory.join("import.csv");
    if !path.exists() {
        let mut generate = Command::new(&server.path);
        let generated = run(generate.args(["generate", "--rows", &ROWS.to_string()]))?;
        let mut reader = csv::Reader::from_reader(generated.as_bytes());
        let mut writer = csv::Writer::from_path(&path)?;
        writer.write_record(reader.headers()?)?;
        for record in reader.records() {
            let record = record?;
            let id = format!("new-{}", &record[0]);
            writer.write_record(std::iter::once(&id[..]).chain(record.iter().skip(1)))?;
        }
        writer.flush()?;
    }
    command_line(bench, server, "import", &path)
}

/// Payments of one cent, one an invoice for as long as there are any.
fn reconcile(bench: &Bench, program: &Program) -> Result<f64> {
    let path = bench.data.directory.join("payments.csv");
    let targets = data::ids(&bench.data.base(bench.scale.write_base)?, ROWS)?;
    let mut csv = String::from(crate::scenario::EVENT_COLUMNS);
    for n in 0..ROWS {
        let (invoice_id, currency, _) = &targets[n % targets.len()];
        csv += &format!("payment-{n:06},{invoice_id},1,{currency},2024-01-01T00:00:00Z,\n");
    }
    fs::write(&path, csv)?;
    command_line(bench, program, "reconcile", &path)
}

/// An interpreter with grpcio, and the stubs; both are kept for the next run.
struct Python {
    interpreter: PathBuf,
    stubs: PathBuf,
}

impl Python {
    fn ready(directory: &Path) -> Result<Python> {
        let (venv, stubs) = (directory.join("python"), directory.join("python-stubs"));
        let interpreter = venv.join("bin/python");
        if run(Command::new(&interpreter).args(["-c", "import grpc, grpc_tools"])).is_err() {
            // An earlier run may have left it half done, or not at all.
            let _ = fs::remove_dir_all(&venv);
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            let pip = ["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
            run(Command::new(&interpreter).args(pip).args(["grpcio", "grpcio-tools"]))?;
        }
        fs::create_dir_all(&stubs)?;
        let mut protoc = Command::new(&interpreter);
        protoc.args(["-m", "grpc_tools.protoc", "--proto_path"]).arg(format!("{HERE}/../../proto"));
        for out in ["--python_out", "--grpc_python_out"] {
            protoc.arg(out).arg(&stubs);
        }
        run(protoc.args(["billing/v1/report.proto", "google/rpc/error_details.proto"]))?;
        Ok(Python { interpreter, stubs })
    }

    /// Rows a second of one upload; a batch of 0 rows is a message a row.
    fn upload(&self, bench: &Bench, program: &Program, batch: usize) -> Result<f64> {
        let server = bench.start(program, &bench.data.copy(bench.scale.write_base)?)?;
        let mut script = Command::new(&self.interpreter);
        script.arg(format!("{HERE}/python/bulk.py")).env("PYTHONPATH", &self.stubs);
        // Loopback needs no proxy, and grpcio would ask one.
        script.env("no_grpc_proxy", "127.0.0.1");
        let arguments = [server.address.to_string(), ROWS.to_string(), batch.to_string()];
        Ok(run(script.args(arguments))?.trim().parse()?)
    }
}
