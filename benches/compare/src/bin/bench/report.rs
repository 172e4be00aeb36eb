//! The numbers as a Markdown page and as JSON, and the ratios that the project promises.

use std::fmt::Write;

use serde_json::{json, Value};

use crate::doors::Doors;
use crate::growth::Growth;
use crate::scenario::{Load, Sample, Scenario};
use crate::{BEFORE, BILLSTREAM, CEILING, IDIOMATIC, TUNED};

/// One subject of a table, with a sample a round.
pub struct Row {
    pub subject: String,
    pub samples: Vec<Sample>,
    pub failures: Vec<String>,
}

pub struct Table {
    pub scenario: &'static Scenario,
    pub rows: Vec<Row>,
}

/// A metric of a sample.
type Metric = fn(&Sample) -> Option<f64>;

const METRICS: [(&str, Metric); 11] = [
    ("per_second", |s| s.per_second),
    ("server_cpu_us_per_op", |s| s.cpu),
    ("p50_us", |s| s.p50),
    ("p99_us", |s| s.p99),
    ("p999_us", |s| s.p999),
    ("peak_memory_kib", |s| s.peak),
    ("threads", |s| s.threads),
    ("bytes_per_op", |s| s.bytes),
    ("frames_per_op", |s| s.frames),
    ("small_frames_share", |s| s.small),
    ("creating_share", |s| s.creating),
];

/// The median of a metric over the rounds, with the least and the most.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Row {
    pub fn spread(&self, metric: Metric) -> Option<Spread> {
        let mut values: Vec<f64> = self.samples.iter().filter_map(metric).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Spread { median, least, most })
    }

    pub fn json(&self) -> Value {
        let metrics = METRICS.iter().filter_map(|(name, metric)| {
            let Spread { median, least, most } = self.spread(*metric)?;
            let samples: Vec<_> = self.samples.iter().filter_map(metric).collect();
            let value = json!({ "median": median, "min": least, "max": most, "samples": samples });
            Some(((*name).to_owned(), value))
        });
        let metrics: serde_json::Map<_, _> = metrics.collect();
        json!({ "name": self.subject, "metrics": metrics, "failures": self.failures })
    }
}

pub struct Report {
    /// Names and values of the machine, the versions and the run.
    pub setting: Vec<(String, String)>,
    /// The size of each server's program in bytes.
    pub binaries: Vec<(String, u64)>,
    pub checked: String,
    pub tables: Vec<Table>,
    pub growth: Growth,
    pub doors: Doors,
}

impl Report {
    fn median(&self, scenario: &str, subject: &str, metric: Metric) -> Option<f64> {
        let table = self.tables.iter().find(|table| table.scenario.name == scenario)?;
        let row = table.rows.iter().find(|row| row.subject.starts_with(subject))?;
        row.spread(metric).map(|spread| spread.median)
    }

    pub fn markdown(&self) -> String {
        let mut page = String::from("# billstream and tonic, side by side\n\n");
        for (name, value) in &self.setting {
            page += &format!("- {name}: {value}\n");
        }
        page += &format!("\n{}\n", self.checked);
        page += "\nMedians over the rounds, with the least and the most in brackets. \
                 `README.md` beside this harness says how to read them.\n";
        page += "\n![throughput](throughput.svg)\n\n![server CPU](cpu.svg)\n\n\
                 ![latency](latency.svg)\n\n![growth](growth.svg)\n";
        for table in &self.tables {
            page += &markdown_table(table);
        }
        page += &self.footprint();
        page += &self.growth.markdown();
        page += &self.doors.markdown();
        page += "\n## Checklist\n\nRatios of medians within this run.\n\n";
        page += "| | ratio | wanted | |\n|---|---:|---:|---|\n";
        for line in self.checklist() {
            page += &line.markdown();
        }
        page
    }

    /// What each server takes before it does anything, and while clients make it wait.
    fn footprint(&self) -> String {
        let mut text = String::from("\n## Footprint\n\n");
        text += "| | binary | start to first answer | memory, idle | threads, idle \
                 | memory, 100 stalled exports | threads, 100 stalled exports |\n";
        text += "|---|---:|---:|---:|---:|---:|---:|\n";
        let mib = |bytes: f64| format!("{:.1} MiB", bytes / 1048576.0);
        for (name, bytes) in &self.binaries {
            let of = |scenario, metric, show: &dyn Fn(f64) -> String| {
                self.median(scenario, name, metric).map_or("-".to_owned(), show)
            };
            let (kib, count) = (|kib: f64| mib(kib * 1024.0), |n: f64| format!("{n:.0}"));
            let (idle, stalled) = ("Idle", "100 stalled exports");
            let cells = [
                name.clone(),
                mib(*bytes as f64),
                of(idle, |s| s.p50, &micros),
                of(idle, |s| s.peak, &kib),
                of(idle, |s| s.threads, &count),
                of(stalled, |s| s.peak, &kib),
                of(stalled, |s| s.threads, &count),
            ];
            text += &format!("| {} |\n", cells.join(" | "));
        }
        text
    }

    pub fn json(&self) -> Value {
        let binaries: serde_json::Map<_, _> =
            self.binaries.iter().map(|(name, bytes)| (name.clone(), json!(bytes))).collect();
        let setting: serde_json::Map<_, _> =
            self.setting.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let tables = self.tables.iter().map(|table| {
            let rows = table.rows.iter().map(Row::json);
            json!({
                "name": table.scenario.name,
                "operation": table.scenario.unit,
                "latency_of": table.scenario.latency_of,
                "subjects": rows.collect::<Vec<_>>(),
            })
        });
        let checklist = self.checklist().into_iter().map(|line| {
            json!({
                "what": line.what, "ratio": line.ratio, "wanted": line.wanted(), "met": line.met(),
            })
        });
        json!({
            "setting": setting,
            "binary_bytes": binaries,
            "checked": self.checked,
            "tables": tables.collect::<Vec<_>>(),
            "growth": self.growth.json(),
            "doors": self.doors.json(),
            "checklist": checklist.collect::<Vec<_>>(),
        })
    }

    /// The promises of the project as ratios.
    pub fn checklist(&self) -> Vec<Promise> {
        let older = self.promises_of_change();
        if !older.is_empty() {
            return older.into_iter().chain(self.doors.promises()).collect();
        }
        let mut list = self.stream_promises();
        for rpc in ["GetSummary", "ListInvoices of 100"] {
            for callers in ["1 caller", "10 callers", "100 callers"] {
                self.unary_promises(&format!("{rpc}, {callers}"), &mut list);
            }
        }
        list.extend(self.write_promises());
        list.extend(self.doors.promises());
        let beside = "GetSummary, 100 a second beside 8 exports";
        for (server, bound) in [(BILLSTREAM, AtMost(3.0)), (IDIOMATIC, Shown), (TUNED, Shown)] {
            let calm = self.median("GetSummary, 100 a second", server, |s| s.p99);
            let busy = self.median(beside, server, |s| s.p99);
            list.push(promise(
                format!("p99 beside 8 exports / alone: {server}"),
                busy,
                calm,
                bound,
            ));
        }
        list
    }

    /// What a change cost, where an older billstream was measured in turn.
    fn promises_of_change(&self) -> Vec<Promise> {
        let with_older = |table: &&Table| table.rows.iter().any(|row| row.subject == BEFORE);
        let mut list = Vec::new();
        for Scenario { name, load, .. } in
            self.tables.iter().filter(with_older).map(|table| table.scenario)
        {
            let (what, metric, bound): (_, Metric, _) = match load {
                Load::OpenLoop | Load::BesideExports => ("p99", |s| s.p99, Shown),
                Load::Stalled | Load::Idle => ("peak memory", |s| s.peak, Shown),
                _ => ("a second", |s| s.per_second, AtLeast(0.97)),
            };
            let of = |subject, metric| self.median(name, subject, metric);
            let (ours, theirs) = (of(BILLSTREAM, metric), of(BEFORE, metric));
            list.push(promise(format!("{name}: {what} / before"), ours, theirs, bound));
            let cpu: Metric = |s| s.cpu;
            if let (Some(ours), Some(theirs)) = (of(BILLSTREAM, cpu), of(BEFORE, cpu)) {
                let what = format!("{name}: server CPU / before");
                list.push(promise(what, Some(ours), Some(theirs), Shown));
            }
        }
        list
    }

    fn stream_promises(&self) -> Vec<Promise> {
        let rate = |scenario, subject| self.median(scenario, subject, |s| s.per_second);
        let (rows, batches) = ("ExportInvoices", "ExportInvoiceBatches");
        let ours = rate(batches, BILLSTREAM);
        let ours_rows = rate(rows, BILLSTREAM);
        vec![
            promise("batches / scan and encode", ours, rate(batches, "limit"), AtLeast(0.8)),
            promise("batches / tuned tonic's rows", ours, rate(rows, TUNED), AtLeast(1.5)),
            promise("batches / tuned tonic's batches", ours, rate(batches, TUNED), AtLeast(1.0)),
            promise("batches / idiomatic tonic's rows", ours, rate(rows, IDIOMATIC), AtLeast(3.0)),
            promise("batches / idiomatic tonic's batches", ours, rate(batches, IDIOMATIC), Shown),
            promise("rows / the C core's ceiling", ours_rows, rate(rows, CEILING), AtLeast(0.9)),
            promise("rows / idiomatic tonic's", ours_rows, rate(rows, IDIOMATIC), AtLeast(1.0)),
            promise("rows / tuned tonic's (stretch 0.6)", ours_rows, rate(rows, TUNED), Shown),
            promise(
                "exports that survive h2's default guard / those begun",
                rate("h2's default guard", BILLSTREAM),
                Some(self.guarded_runs()),
                AtLeast(1.0),
            ),
        ]
    }

    fn guarded_runs(&self) -> f64 {
        let runs = self.setting.iter().find(|(name, _)| name == crate::GUARDED_RUNS);
        runs.and_then(|(_, value)| value.parse().ok()).unwrap_or(f64::NAN)
    }

    fn unary_promises(&self, scenario: &str, list: &mut Vec<Promise>) {
        for (peer, rate, tail) in [(IDIOMATIC, AtLeast(1.0), AtMost(1.0)), (TUNED, Shown, Shown)] {
            let of = |subject, metric| self.median(scenario, subject, metric);
            let (ours, theirs): (Metric, Metric) = (|s| s.per_second, |s| s.p99);
            let what = format!("{scenario}: calls a second / {peer}");
            list.push(promise(what, of(BILLSTREAM, ours), of(peer, ours), rate));
            let what = format!("{scenario}: p99 / {peer}");
            list.push(promise(what, of(BILLSTREAM, theirs), of(peer, theirs), tail));
        }
    }

    fn write_promises(&self) -> Vec<Promise> {
        let rate = |scenario, subject| self.median(scenario, subject, |s| s.per_second);
        let mut list = Vec::new();
        for (scenario, peer, bound) in [
            ("BulkCreate, one large upload", "limit", AtLeast(0.6)),
            ("BulkCreate, one large upload", IDIOMATIC, Shown),
            ("BulkCreate, one large upload", TUNED, Shown),
            ("BulkCreate, 16 clients", IDIOMATIC, AtLeast(3.0)),
            ("BulkCreate, 16 clients", TUNED, AtLeast(1.0)),
            ("Reconcile, 64 clients", IDIOMATIC, AtLeast(5.0)),
            ("Reconcile, 64 clients", TUNED, AtLeast(1.0)),
            ("Reconcile, pipelining", IDIOMATIC, Shown),
            ("Reconcile, pipelining", TUNED, Shown),
        ] {
            let what = format!("{scenario} / {peer}");
            list.push(promise(what, rate(scenario, BILLSTREAM), rate(scenario, peer), bound));
        }
        list
    }
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Shown,
}
use Bound::{AtLeast, AtMost, Shown};

/// A ratio, and what it should be. It is printed and not enforced: a noisy machine is no failure.
pub struct Promise {
    what: String,
    ratio: Option<f64>,
    bound: Bound,
}

pub fn promise(
    what: impl Into<String>,
    ours: Option<f64>,
    other: Option<f64>,
    bound: Bound,
) -> Promise {
    let ratio = ours.zip(other).map(|(ours, other)| ours / other);
    Promise { what: what.into(), ratio, bound }
}

impl Promise {
    fn met(&self) -> Option<bool> {
        match (self.ratio?, self.bound) {
            (ratio, AtLeast(bound)) => Some(ratio >= bound),
            (ratio, AtMost(bound)) => Some(ratio <= bound),
            (_, Shown) => None,
        }
    }

    fn wanted(&self) -> String {
        match self.bound {
            AtLeast(bound) => format!("≥ {bound}"),
            AtMost(bound) => format!("≤ {bound}"),
            Shown => "-".to_owned(),
        }
    }

    pub fn markdown(&self) -> String {
        let ratio = self.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        format!("| {} | {ratio} | {} | {met} |\n", self.what, self.wanted())
    }
}

fn markdown_table(table: &Table) -> String {
    let Scenario { name, unit, latency_of, .. } = table.scenario;
    let mut text = format!("\n## {name}\n\nOperation: {unit}. Latency of: {latency_of}.\n\n");
    let count = matches!(table.scenario.load, Load::Stalled | Load::Guarded);
    let rate = if count { "count" } else { "a second" };
    text += &format!("| | {rate} ");
    text += "| server CPU an operation | p50 | p99 | p99.9 | peak memory | threads \
             | bytes an operation | bytes a frame (small) |\n";
    text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in &table.rows {
        let cell = |metric: Metric, show: fn(f64) -> String| match row.spread(metric) {
            Some(spread) => show(spread.median),
            None => "-".to_owned(),
        };
        let rate = match row.spread(|s| s.per_second) {
            Some(Spread { median, least, most }) => {
                format!("**{}** ({}–{})", human(median), human(least), human(most))
            }
            None => row.failures.first().map_or("-".to_owned(), |why| format!("failed: {why}")),
        };
        let frame = match row.spread(|s| Some(s.bytes? / s.frames?)) {
            Some(spread) => {
                let small = row.spread(|s| s.small).map_or(0.0, |small| small.median * 100.0);
                format!("{} ({small:.0} %)", human(spread.median))
            }
            None => "-".to_owned(),
        };
        let cells = [
            row.subject.clone(),
            rate,
            cell(|s| s.cpu, micros),
            cell(|s| s.p50, micros),
            cell(|s| s.p99, micros),
            cell(|s| s.p999, micros),
            cell(|s| s.peak, |kib| format!("{:.1} MiB", kib / 1024.0)),
            cell(|s| s.threads, |n| format!("{n:.0}")),
            cell(|s| s.bytes, human),
            frame,
        ];
        // OK because a String takes every write.
        writeln!(text, "| {} |", cells.join(" | ")).expect("a String grows");
    }
    text
}

/// At most three digits, and a unit.
pub fn human(value: f64) -> String {
    match value {
        v if v >= 999_500.0 => format!("{} M", digits(v / 1e6)),
        v if v >= 9_995.0 => format!("{} k", digits(v / 1e3)),
        v => digits(v),
    }
}

pub fn micros(value: f64) -> String {
    match value {
        v if v >= 999_500.0 => format!("{} s", digits(v / 1e6)),
        v if v >= 999.5 => format!("{} ms", digits(v / 1e3)),
        v => format!("{} µs", digits(v)),
    }
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 || v == v.round() => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
