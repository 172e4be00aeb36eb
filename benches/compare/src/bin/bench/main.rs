//! Measures billstream and the two tonic peers side by side, and writes a report.
//!
//! Rounds go over all tables, and in each table over all servers in turn, so that a machine that
//! gets slower for a while slows all of them.

mod chart;
mod checks;
mod data;
mod doors;
mod growth;
mod limits;
mod python;
mod report;
mod scenario;
mod server;
mod setting;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;

use data::{Data, Result};
use doors::{Doors, Programs};
use growth::Growth;
use report::{micros, Report, Row, Table};
use scenario::{Bench, Load, Scale, Scenario, Subject, SCENARIOS};
use server::Program;

pub const BILLSTREAM: &str = "billstream";
pub const TUNED: &str = "tonic, tuned";
pub const IDIOMATIC: &str = "tonic, idiomatic";
pub const CEILING: &str = "limit: C core's ceiling";
pub const BEFORE: &str = "the older billstream";
/// The name of a line of the report's head, which the checklist reads.
pub const GUARDED_RUNS: &str = "exports under h2's default guard";

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Measures billstream beside two tonic servers that do the same work.
#[derive(Parser)]
struct Args {
    /// Within 3 minutes; without it within 20.
    #[arg(long)]
    short: bool,
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/billstream"))]
    billstream: PathBuf,
    /// A server of constant messages: what the C core itself can do.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/examples/ceiling"))]
    ceiling: PathBuf,
    /// A program that has the server in its process.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/examples/local"))]
    local: PathBuf,
    /// Where the databases are. It must be on a disk: on tmpfs an fsync costs nothing.
    #[arg(long)]
    data: Option<PathBuf>,
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    out: PathBuf,
    /// An older billstream, which is measured in turn with ours, in the place of the tonic servers
    /// and the limits.
    #[arg(long)]
    old: Option<PathBuf>,
    /// Only the tables whose name contains this, and no growth; "Doors" is a name too.
    #[arg(long)]
    only: Option<String>,
    #[arg(long)]
    rounds: Option<usize>,
    /// Exports a round under h2's default guard.
    #[arg(long)]
    guarded_runs: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let begun = Instant::now();
    let programs = programs(&args)?;
    let beside = std::env::current_exe()?.with_file_name("bench-data");
    let directory = args.data.clone().unwrap_or(beside);
    fs::create_dir_all(&directory)?;
    let data = Data { directory, billstream: args.billstream.clone(), is_upgraded: false };
    let mut scale = if args.short { short() } else { full() };
    scale.rounds = args.rounds.unwrap_or(scale.rounds);
    scale.guarded_runs = args.guarded_runs.unwrap_or(scale.guarded_runs);
    let bench = Bench { data, scale };
    let checked = check(&bench, &programs)?;
    eprintln!("{checked}");

    let mut tables = tables(&args, &programs);
    for round in 0..bench.scale.rounds {
        for table in &mut tables {
            measure(&bench, table, &programs, round);
        }
    }
    let subjects: Vec<_> = programs.iter().cloned().map(Subject::Server).collect();
    let growth = match args.only {
        Some(_) => Growth::default(),
        None => Growth::measure(&bench, &subjects),
    };
    let doors = match &args.only {
        Some(part) if !"Doors".contains(part.as_str()) => Doors::default(),
        _ => Doors::measure(&bench, &of_doors(&args, &programs)),
    };
    let setting = setting::describe(&bench, begun.elapsed());
    let binaries = setting::binaries(&programs);
    write(&args.out, &Report { setting, binaries, checked, tables, growth, doors })
}

fn short() -> Scale {
    Scale {
        rounds: 3,
        duration: Duration::from_millis(350),
        open_loop: Duration::from_millis(1000),
        read_base: 1_000_000,
        write_base: 100_000,
        export_rows: 200_000,
        client_rows: 50_000,
        upload_rows: 20_000,
        events: 1_000,
        guarded_runs: 2,
        growth: &[10_000, 100_000, 1_000_000],
    }
}

fn full() -> Scale {
    Scale {
        rounds: 6,
        duration: Duration::from_millis(700),
        open_loop: Duration::from_millis(2500),
        export_rows: 1_000_000,
        client_rows: 300_000,
        upload_rows: 100_000,
        events: 5_000,
        guarded_runs: 17,
        growth: &[10_000, 100_000, 1_000_000, 10_000_000],
        ..short()
    }
}

fn programs(args: &Args) -> Result<Vec<Program>> {
    let peer = std::env::current_exe()?.with_file_name("peer");
    let of = |name, path: &Path, arguments: &[&str]| Program {
        name,
        path: path.to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        tls_ca: None,
    };
    let ours = of(BILLSTREAM, &args.billstream, &["serve"]);
    let others = match &args.old {
        Some(old) => vec![of(BEFORE, old, &["serve"])],
        None => vec![
            of(TUNED, &peer, &["--mode", "tuned"]),
            of(IDIOMATIC, &peer, &["--mode", "idiomatic"]),
            of(CEILING, &args.ceiling, &[]),
        ],
    };
    let programs = [vec![ours], others].concat();
    for path in programs.iter().map(|program| &program.path).chain([&args.local]) {
        if !path.exists() {
            return Err(format!("{} is not there: build it first", path.display()).into());
        }
    }
    Ok(programs)
}

fn of_doors<'a>(args: &'a Args, programs: &'a [Program]) -> Programs<'a> {
    // The first program is ours.
    Programs { billstream: &programs[0], old: args.old.as_deref(), local: &args.local }
}

/// Asks every server the same, and fails where one answers otherwise.
fn check(bench: &Bench, programs: &[Program]) -> Result<String> {
    const ROWS: usize = 10_000;
    let targets = data::ids(&bench.data.base(ROWS)?, 50)?;
    let mut first: Option<(&str, checks::Answers)> = None;
    for program in programs.iter().filter(|program| program.name != CEILING) {
        let server = bench.start(program, &bench.data_of(program).copy(ROWS)?)?;
        let answers = checks::run(server.address, &targets)?;
        let Some((name, expected)) = &first else {
            first = Some((program.name, answers));
            continue;
        };
        for ((question, theirs), (_, ours)) in answers.iter().zip(expected) {
            if theirs != ours {
                let name = program.name;
                return Err(format!(
                    "not the same work: {question}\n  {name}: {theirs}\n  {}: {ours}",
                    first.as_ref().map_or("", |f| f.0)
                )
                .into());
            }
        }
        if answers.len() != expected.len() {
            return Err(format!("{} gave fewer answers than {name}", program.name).into());
        }
    }
    let count = first.map_or(0, |(_, answers)| answers.len());
    Ok(format!(
        "Checked before measuring: {count} requests of all six rpcs got the same answer from every \
         server, rows and batches and pages compared field by field."
    ))
}

fn tables(args: &Args, programs: &[Program]) -> Vec<Table> {
    let wanted = |scenario: &&Scenario| match &args.only {
        Some(part) => scenario.name.contains(part.as_str()),
        None => true,
    };
    let chosen = SCENARIOS.iter().filter(wanted);
    let row = |subject: &str| Row {
        subject: subject.to_owned(),
        samples: Vec::new(),
        failures: Vec::new(),
    };
    chosen
        .map(|scenario| {
            let subjects = subjects(scenario, programs);
            Table { scenario, rows: subjects.iter().map(|subject| row(subject.name())).collect() }
        })
        .collect()
}

/// The rows of a table: the servers, and the limits that belong to it.
fn subjects(scenario: &Scenario, programs: &[Program]) -> Vec<Subject> {
    let servers = programs.iter().filter(|p| p.name != CEILING || scenario.load.has_ceiling());
    let with_limits = programs.iter().all(|program| program.name != BEFORE);
    let limits = scenario
        .limits
        .iter()
        .filter(move |_| with_limits)
        .map(|&(name, kind)| Subject::Limit(name, kind));
    servers.cloned().map(Subject::Server).chain(limits).collect()
}

fn measure(bench: &Bench, table: &mut Table, programs: &[Program], round: usize) {
    let subjects = subjects(table.scenario, programs);
    for n in 0..subjects.len() {
        // Each round begins with another one.
        let turn = (n + round) % subjects.len();
        let (subject, row) = (&subjects[turn], &mut table.rows[turn]);
        eprint!("round {}: {}: {}", round + 1, table.scenario.name, subject.name());
        match bench.measure(table.scenario, subject) {
            Ok(sample) => {
                eprintln!(": {}", sample.per_second.map_or("-".to_owned(), report::human));
                row.samples.push(sample);
            }
            Err(error) => {
                eprintln!(": failed: {error}");
                row.failures.push(error);
            }
        }
    }
}

fn write(out: &Path, report: &Report) -> Result<()> {
    fs::create_dir_all(out)?;
    let page = report.markdown();
    println!("{page}");
    fs::write(out.join("report.md"), page)?;
    fs::write(out.join("report.json"), serde_json::to_string_pretty(&report.json())? + "\n")?;
    let whiskers = "Median; the line goes from the least to the most of the rounds.";
    let rate = panels(
        report,
        |_| true,
        |s| s.per_second,
        |table| format!(": {} a second", table.unit),
        true,
    );
    let throughput = chart::bars("Throughput, more is better", whiskers, &rate, report::human);
    fs::write(out.join("throughput.svg"), throughput)?;
    let cpu = panels(report, |_| true, |s| s.cpu, |table| format!(": {}", table.unit), false);
    let cpu = chart::bars("Server CPU an operation, less is better", whiskers, &cpu, micros);
    fs::write(out.join("cpu.svg"), cpu)?;
    let calls = |scenario: &Scenario| {
        scenario.name.starts_with("GetSummary") || scenario.name.starts_with("ListInvoices")
    };
    let tail = panels(report, calls, |s| s.p99, |_| String::new(), false);
    let tail = chart::bars("p99 latency of unary calls, less is better", whiskers, &tail, micros);
    fs::write(out.join("latency.svg"), tail)?;
    fs::write(out.join("growth.svg"), growth_chart(&report.growth))?;
    eprintln!("written to {}", out.display());
    Ok(())
}

fn panels(
    report: &Report,
    wanted: fn(&Scenario) -> bool,
    metric: fn(&scenario::Sample) -> Option<f64>,
    what: fn(&Scenario) -> String,
    is_rate: bool,
) -> Vec<chart::Panel> {
    // In these tables the rate is a count, or nothing, or what the client made it.
    let plain = |load| match load {
        Load::Stalled | Load::Guarded | Load::Idle => false,
        Load::OpenLoop | Load::BesideExports => !is_rate,
        _ => true,
    };
    let tables = report.tables.iter().filter(|table| wanted(table.scenario));
    tables
        .filter(|table| plain(table.scenario.load))
        .map(|table| {
            let bars = table
                .rows
                .iter()
                .filter_map(|row| Some((row.subject.clone(), row.spread(metric)?)));
            let title = format!("{}{}", table.scenario.name, what(table.scenario));
            chart::Panel { title, bars: bars.collect() }
        })
        .filter(|panel| !panel.bars.is_empty())
        .collect()
}

fn growth_chart(growth: &Growth) -> String {
    let plots: Vec<_> = growth::COSTS
        .iter()
        .enumerate()
        .map(|(cost, &name)| {
            let series = [BILLSTREAM, TUNED, IDIOMATIC].map(|server| chart::Series {
                subject: server.to_owned(),
                points: growth
                    .0
                    .iter()
                    .filter(|point| point.server == server)
                    .map(|point| (point.invoices as f64, point.costs[cost]))
                    .collect(),
            });
            (name, series.into())
        })
        .collect();
    let note = "Invoices in the table, and time; flat is right for all four, the exports being by the row.";
    chart::lines("Cost of growth", note, &plots, micros)
}
