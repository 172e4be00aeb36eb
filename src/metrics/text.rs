//! The text that Prometheus reads
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
//!
//! (The crate `prometheus-client` writes OpenMetrics, in which a counter's samples have another name than its
//! HELP; `promtool check metrics` finds no help for them.)

use std::fmt::{Display, Write};

use super::{Counter, Gauge};

/// What can be shown.
pub(crate) trait Shown {
    fn show(&self, text: &mut Text);
}

/// The text so far, and the metric that is being written.
#[derive(Default)]
pub(crate) struct Text {
    all: String,
    name: String,
    help: String,
}

impl Text {
    /// Writes a metric; `name` is without `billstream_` and the `_total` of a counter. The names of
    /// OpenTelemetry and those that every process has stay as they are.
    pub fn show(&mut self, name: &str, help: &str, metric: &dyn Shown) {
        let is_whole = name.starts_with("rpc_") || name.starts_with("process_");
        self.name = if is_whole { name.to_owned() } else { format!("billstream_{name}") };
        let words: Vec<&str> = help.split_whitespace().collect();
        self.help = words.join(" ").replace('`', "").replace('\\', "\\\\");
        metric.show(self);
    }

    /// Begins a number that only rises.
    pub fn total(&mut self) {
        self.name += "_total";
        self.head("counter");
    }

    /// Begins one that rises and falls.
    pub fn gauge(&mut self) {
        self.head("gauge");
    }

    pub fn histogram(&mut self) {
        self.head("histogram");
    }

    fn head(&mut self, kind: &str) {
        let Text { all, name, help } = self;
        // OK because a `String` takes every write.
        let _ = write!(all, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A sample of the metric that is being written.
    pub fn line(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let Text { all, name, .. } = self;
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        // OK because a `String` takes every write.
        let _ = writeln!(all, "{name}{suffix}{open}{labels}{close} {value}");
    }

    pub fn into_string(self) -> String {
        self.all
    }
}

/// Numbers that are read elsewhere, each with its labels.
pub(crate) enum Values {
    Totals(Vec<(String, f64)>),
    Gauges(Vec<(String, f64)>),
}

impl Values {
    /// One without labels.
    pub fn gauge(value: f64) -> Values {
        Values::Gauges(vec![(String::new(), value)])
    }
}

impl Shown for Values {
    fn show(&self, text: &mut Text) {
        let values = match self {
            Values::Totals(values) => {
                text.total();
                values
            }
            Values::Gauges(values) => {
                text.gauge();
                values
            }
        };
        for (labels, value) in values {
            text.line("", labels, value);
        }
    }
}

impl Shown for Counter {
    fn show(&self, text: &mut Text) {
        text.total();
        text.line("", "", self.get());
    }
}

impl Shown for Gauge {
    fn show(&self, text: &mut Text) {
        text.gauge();
        text.line("", "", self.get());
    }
}
