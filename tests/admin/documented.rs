//! The pages and files of an operator have each metric and alert, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use billstream::Config;

use crate::support::{get, labels, metrics, operated, samples, Metric};

pub fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is asked for in the panels of the dashboard.
pub fn panels() -> Vec<(String, String)> {
    let dashboard: serde_json::Value =
        serde_json::from_str(&file("packaging/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |it| (title.clone(), it["expr"].as_str().unwrap().to_owned()))
    });
    queries.collect()
}

/// The lines of `key` in the rules.
pub fn rules(key: &str) -> Vec<String> {
    let file = file("packaging/alerts.yml");
    let lines = file.lines().map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| Some(line.strip_prefix(key)?.trim().to_owned())).collect()
}

fn row(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let Metric { name, kind, help, .. } = metric;
    format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
}

#[test]
fn the_page_has_every_metric_as_it_is_and_no_other() {
    let server = operated(Config::default());
    let shown = get(&server, "/metrics").body;
    let expected: Vec<String> = metrics(&shown).iter().map(row).collect();
    let page = file("docs/observability.md");
    let written: Vec<&str> = page
        .lines()
        .filter(|line| {
            ["| `billstream_", "| `rpc_", "| `process_"].iter().any(|p| line.starts_with(p))
        })
        .collect();
    assert_eq!(written, expected, "the table is to be:\n{}\n", expected.join("\n"));
    let embedded: Vec<String> = metrics(&server.get().prometheus()).iter().map(row).collect();
    assert_eq!(embedded, expected);
}

/// The names of metrics in a query.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    let ours = words.filter(|word| {
        ["billstream_", "rpc_server_", "process_"].iter().any(|prefix| word.starts_with(prefix))
    });
    ours.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    let server = operated(Config::default());
    let shown = samples(&get(&server, "/metrics").body);
    let shown: BTreeSet<_> =
        shown.keys().map(|sample| sample.split('{').next().unwrap().to_owned()).collect();
    let queries = panels().into_iter().map(|(_, query)| query).chain(rules("expr:"));
    let asked: BTreeSet<String> = queries.flat_map(|query| names(&query)).collect();
    let unknown: Vec<_> = asked.difference(&shown).collect();
    assert!(asked.len() > 20 && unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_page_of_alerts_says_what_to_do_for_each_and_for_no_other() {
    let page = file("docs/alerts.md");
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, rules("alert:"));
}

/// Labels have the values of fixed lists, whatever clients do: see `counters` for what they do.
pub fn assert_bounded(text: &str) {
    let methods: BTreeSet<_> = [
        "GetSummary",
        "ListInvoices",
        "ExportInvoices",
        "ExportInvoiceBatches",
        "BulkCreate",
        "BulkCreateBatches",
        "Reconcile",
        "ReconcileBatches",
        "GetInvoice",
        "ExportEvents",
    ]
    .map(|name| format!("billing.v1.ReportService/{name}"))
    .into_iter()
    .chain(["billing.v1.AdminService/Backup".to_owned()])
    .collect();
    let codes: BTreeSet<_> =
        (0..17).map(|n| billstream::client::Code::from_number(n).name()).collect();
    for sample in samples(text).keys() {
        for (name, value) in labels(sample) {
            let is_known = match &name[..] {
                "rpc_method" => methods.contains(&value),
                "rpc_response_status_code" => codes.contains(&value[..]),
                "limit" => billstream::config::SETTINGS.iter().any(|setting| setting.name == value),
                "reason" => ["client_gone", "deadline", "limit", "stopping"].contains(&&value[..]),
                "state" => ["running", "parked", "waiting_for_client", "waiting_for_writer"]
                    .contains(&&value[..]),
                "queue" => ["unary", "export", "spool", "writer"].contains(&&value[..]),
                "part" => ["grpc", "streams"].contains(&&value[..]),
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                "version" | "engine" => value.len() < 32,
                _ => false,
            };
            assert!(is_known, "{sample}");
        }
    }
}
