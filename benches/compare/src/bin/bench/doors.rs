//! What people get who do not write a client of their own: Python's gRPC, billstream's command line, and
//! `server.local()`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::data::{self, Result};
use crate::limits;
use crate::python::{Python, Upload};
use crate::report::{human, micros, promise, Bound, Promise, Row, Spread};
use crate::scenario::{Bench, Sample};
use crate::server::{Program, Server};
use crate::BEFORE;

/// Rows or payments of each measurement that writes.
pub const ROWS: usize = 100_000;
/// The rows of a message of Python's; 0: the rpc of a row a message.
const PYTHON_ROWS: [usize; 4] = [0, 500, 1024, 4096];
const PYTHON: &str = "Python, BulkCreate";
const PYTHON_BATCHES: &str = "Python, BulkCreateBatches of 4096";
const INSERTS: &str = "limit: SQLite inserts";
const IMPORT: &str = "billstream import";
const RECONCILE: &str = "billstream reconcile";
const OLD_RECONCILE: &str = "billstream reconcile, of --old";
const EXPORT: &str = "billstream export";
const OLD_EXPORT: &str = "billstream export, of --old";
const TLS_RECONCILE: &str = "billstream reconcile, over TLS";
const TLS_EXPORT: &str = "billstream export, over TLS";
const SCAN: &str = "limit: scan and encode";
const LOCAL_EXPORT: &str = "server.local(), export";
const LOCAL_SUMMARY: &str = "server.local(), summary";

/// Whose doors they are.
pub struct Programs<'a> {
    pub billstream: &'a Program,
    pub old: Option<&'a Path>,
    /// `examples/local.rs`.
    pub local: &'a Path,
}

/// One row for each way in, with a sample a round.
#[derive(Default)]
pub struct Doors {
    rows: Vec<Row>,
    /// Why there are no rows of Python's.
    without_python: Option<String>,
}

impl Doors {
    pub fn measure(bench: &Bench, programs: &Programs<'_>) -> Doors {
        let mut doors = Doors::default();
        let ours = programs.billstream;
        // Once: a message a row takes Python up to half a minute.
        doors.python(bench, ours);
        let old = programs.old.map(|path| Program {
            name: BEFORE,
            path: path.to_owned(),
            ..ours.clone()
        });
        let over_tls = over_tls(bench, ours);
        for _ in 0..bench.scale.rounds {
            match &over_tls {
                Ok(ours) => {
                    doors.add(TLS_RECONCILE, reconcile(bench, ours));
                    doors.add(TLS_EXPORT, export(bench, ours));
                }
                Err(why) => doors.add(TLS_EXPORT, Err(why.to_string().into())),
            }
            doors.add(INSERTS, raw_inserts(bench));
            doors.add(IMPORT, import(bench, ours));
            if let Some(old) = &old {
                doors.add(OLD_RECONCILE, reconcile(bench, old));
                doors.add(OLD_EXPORT, export(bench, old));
            }
            doors.add(RECONCILE, reconcile(bench, ours));
            doors.add(EXPORT, export(bench, ours));
            doors.add(SCAN, scan(bench));
            doors.local(bench, programs.local);
        }
        doors
    }

    fn python(&mut self, bench: &Bench, server: &Program) {
        let python = match Python::ready(&bench.data.directory) {
            Ok(python) => python,
            Err(why) => {
                eprintln!("Python's gRPC is not measured: {why}");
                self.without_python = Some(why.to_string());
                return;
            }
        };
        let uploads = python.uploads(bench, server, &PYTHON_ROWS);
        let uploads = uploads.map_err(|error| self.add(PYTHON, Err(error))).unwrap_or_default();
        for (rows, Upload { per_second, creating }) in PYTHON_ROWS.into_iter().zip(uploads) {
            let (per_second, creating) = (Some(per_second), Some(creating));
            let sample = Sample { per_second, creating, ..Sample::default() };
            match rows {
                0 => self.add(PYTHON, Ok(sample)),
                _ => self.add(&format!("{PYTHON}Batches of {rows}"), Ok(sample)),
            }
        }
    }

    fn local(&mut self, bench: &Bench, program: &Path) {
        match local(bench, program) {
            Ok((export, summary)) => {
                self.add(LOCAL_EXPORT, Ok(export));
                self.add(LOCAL_SUMMARY, Ok(summary));
            }
            Err(error) => self.add(LOCAL_EXPORT, Err(error)),
        }
    }

    fn add(&mut self, subject: &str, measured: Result<Sample>) {
        let known = self.rows.iter().position(|row| row.subject == subject);
        let place = known.unwrap_or_else(|| {
            let subject = subject.to_owned();
            self.rows.push(Row { subject, samples: Vec::new(), failures: Vec::new() });
            self.rows.len() - 1
        });
        match measured {
            Ok(sample) => self.rows[place].samples.push(sample),
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
        let mut text =
            String::from("\n## Doors\n\n| | a second | p50 | creating |\n|---|---:|---:|---:|\n");
        for row in &self.rows {
            let rate = match row.spread(|s| s.per_second) {
                Some(Spread { median, least, most }) => {
                    format!("**{}** ({}–{})", human(median), human(least), human(most))
                }
                None => row.failures.first().map_or("-".to_owned(), |why| format!("failed: {why}")),
            };
            let p50 = row.spread(|s| s.p50).map_or("-".to_owned(), |p50| micros(p50.median));
            let creating = row.spread(|s| s.creating);
            let creating =
                creating.map_or("-".to_owned(), |c| format!("{:.0} %", c.median * 100.0));
            text += &format!("| {} | {rate} | {p50} | {creating} |\n", row.subject);
        }
        if let Some(why) = &self.without_python {
            text += &format!("\nPython's gRPC was not measured: {why}\n");
        }
        text
    }

    pub fn json(&self) -> Vec<Value> {
        self.rows.iter().map(Row::json).collect()
    }

    /// The ratios that the project promises of them.
    pub fn promises(&self) -> Vec<Promise> {
        let has = |subject: &str| self.rows.iter().any(|row| row.subject == subject);
        let median = |subject: &str, metric: fn(&Sample) -> Option<f64>| {
            let row = self.rows.iter().find(|row| row.subject == subject)?;
            row.spread(metric).map(|spread| spread.median)
        };
        let rate = |subject| median(subject, |s| s.per_second);
        let ratios = [
            (PYTHON_BATCHES, PYTHON, 20.0),
            (IMPORT, INSERTS, 0.7),
            (RECONCILE, OLD_RECONCILE, 4.0),
            (EXPORT, OLD_EXPORT, 0.9),
            (LOCAL_EXPORT, SCAN, 0.9),
        ];
        let ratios = ratios.into_iter().filter(|(ours, ..)| has(ours));
        let mut promises: Vec<_> = ratios
            .map(|(ours, other, bound)| {
                promise(format!("{ours} / {other}"), rate(ours), rate(other), Bound::AtLeast(bound))
            })
            .collect();
        for (ours, other) in [(TLS_RECONCILE, RECONCILE), (TLS_EXPORT, EXPORT)] {
            let what = format!("{ours} / without");
            promises.push(promise(what, rate(ours), rate(other), Bound::Shown));
        }
        if has(LOCAL_SUMMARY) {
            let p50 = median(LOCAL_SUMMARY, |s| s.p50);
            let what = format!("{LOCAL_SUMMARY}: p50 / 1 µs");
            promises.push(promise(what, p50, Some(1.0), Bound::AtMost(20.0)));
        }
        promises
    }
}

/// Runs a command; its last words when it fails, and what it printed when it does not.
pub fn run(command: &mut Command) -> Result<String> {
    let name = format!("{:?}", command.get_program());
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(format!("{name}: {}: {last}", output.status).into())
}

fn rate(operations: usize, start: Instant) -> Sample {
    let per_second = operations as f64 / start.elapsed().as_secs_f64();
    Sample { per_second: Some(per_second), ..Sample::default() }
}

fn raw_inserts(bench: &Bench) -> Result<Sample> {
    let limit = limits::raw_inserts(&bench.data, bench.scale.write_base, ROWS)?;
    Ok(Sample::of_limit(&limit))
}

fn scan(bench: &Bench) -> Result<Sample> {
    let db = bench.data.base(bench.scale.read_base)?;
    Ok(Sample::of_limit(&limits::scan_and_encode(&db, bench.scale.export_rows)?))
}

/// An export and the summaries of a program that has the server in its process.
fn local(bench: &Bench, program: &Path) -> Result<(Sample, Sample)> {
    let db = bench.data.upgraded().base(bench.scale.read_base)?;
    let rows = bench.scale.export_rows.to_string();
    let printed = run(Command::new(program).arg(db).arg(rows))?;
    let (per_second, p50) = printed.trim().split_once(' ').ok_or("no two numbers")?;
    let of = |number: &str| number.parse().map(Some);
    let export = Sample { per_second: of(per_second)?, ..Sample::default() };
    Ok((export, Sample { p50: of(p50)?, ..Sample::default() }))
}

/// The program with a certificate of its own, made by openssl.
fn over_tls(bench: &Bench, program: &Program) -> Result<Program> {
    let [cert, key] = ["server.pem", "server.key"]
        .map(|name| bench.data.directory.join(name).display().to_string());
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]).args(subject);
    run(openssl.args(["-keyout", &key, "-out", &cert]))?;
    let mut program = program.clone();
    program.arguments.extend(["--tls-cert".into(), cert.clone(), "--tls-key".into(), key]);
    program.tls_ca = Some(cert);
    Ok(program)
}

/// A command of the program that calls its own server.
fn client(program: &Program, server: &Server, arguments: &[&str]) -> Command {
    let mut client = Command::new(&program.path);
    client.args(arguments).args(["--addr", &server.address.to_string()]);
    client.envs(program.tls_ca.iter().map(|ca| ("BILLSTREAM_CLIENT_TLS_CA", ca)));
    client
}

/// A command of the program against its own server, over a fresh copy.
fn command_line(bench: &Bench, program: &Program, command: &str, file: &Path) -> Result<Sample> {
    let server = bench.start(program, &bench.data_of(program).copy(bench.scale.write_base)?)?;
    let start = Instant::now();
    run(&mut client(program, &server, &[command, &file.to_string_lossy()]))?;
    Ok(rate(ROWS, start))
}

/// As csv, in messages of batches, which an older program has to be asked for.
fn export(bench: &Bench, program: &Program) -> Result<Sample> {
    let server = bench.start(program, &bench.data_of(program).base(bench.scale.read_base)?)?;
    let rows = bench.scale.export_rows;
    let arguments = ["export", "--batched", "--max-rows", &rows.to_string()];
    let mut client = client(program, &server, &arguments);
    client.stdout(Stdio::null());
    // Once before, so that the database is in memory.
    run(&mut client)?;
    let start = Instant::now();
    run(&mut client)?;
    Ok(rate(rows as usize, start))
}

/// Generated invoices under ids that the database does not have.
fn import(bench: &Bench, server: &Program) -> Result<Sample> {
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
fn reconcile(bench: &Bench, program: &Program) -> Result<Sample> {
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
