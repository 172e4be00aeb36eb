//! What the rpcs cost as the table grows: unary calls should not notice, exports should be linear.

use std::time::Duration;

use compare::load::{self, Unary};
use serde_json::{json, Value};

use crate::report::{human, micros};
use crate::scenario::{Bench, Subject};

/// One server at one size; microseconds, for the exports of one row.
pub struct Point {
    pub server: String,
    pub invoices: usize,
    pub costs: [f64; 4],
}

pub const COSTS: [&str; 4] = [
    "GetSummary, p50",
    "ListInvoices of 100, p50",
    "ExportInvoices, a row",
    "ExportInvoiceBatches, a row",
];

#[derive(Default)]
pub struct Growth(pub Vec<Point>);

impl Growth {
    pub fn measure(bench: &Bench, subjects: &[Subject]) -> Growth {
        let mut points = Vec::new();
        for &invoices in bench.scale.growth {
            for subject in subjects {
                let Subject::Server(program) = subject else { continue };
                if program.name == crate::CEILING {
                    continue;
                }
                eprintln!("growth: {invoices} invoices, {}", program.name);
                match point(bench, program, invoices) {
                    Ok(costs) => {
                        let server = program.name.to_owned();
                        points.push(Point { server, invoices, costs });
                    }
                    Err(error) => eprintln!("    failed: {error}"),
                }
            }
        }
        Growth(points)
    }

    pub fn markdown(&self) -> String {
        let mut text =
            String::from("\n## Growth\n\nOne run of each, over tables of these sizes.\n\n");
        text += &format!("| invoices | | {} |\n", COSTS.join(" | "));
        text += "|---:|---|---:|---:|---:|---:|\n";
        for Point { server, invoices, costs } in &self.0 {
            let costs = costs.map(micros).join(" | ");
            text += &format!("| {} | {server} | {costs} |\n", human(*invoices as f64));
        }
        text
    }

    pub fn json(&self) -> Value {
        let points = self.0.iter().map(|point| {
            let costs: serde_json::Map<_, _> =
                COSTS.iter().zip(point.costs).map(|(n, us)| ((*n).to_owned(), json!(us))).collect();
            json!({ "server": point.server, "invoices": point.invoices, "us": costs })
        });
        Value::Array(points.collect())
    }
}

fn point(
    bench: &Bench,
    program: &crate::server::Program,
    invoices: usize,
) -> Result<[f64; 4], String> {
    let db = bench.data_of(program).base(invoices).map_err(|error| error.to_string())?;
    let server = bench.start(program, &db)?;
    let duration = bench.scale.duration.min(Duration::from_millis(500));
    let costs = load::run(async {
        let mut costs = [0.0; 4];
        // So that none of them is the first to read the file.
        load::export(server.address, true, 0).await?;
        load::unary(server.address, Unary::summary(), 1, duration / 5).await?;
        for (cost, call) in costs.iter_mut().zip([Unary::summary(), Unary::list()]) {
            let calls = load::unary(server.address, call, 1, duration).await?;
            *cost = calls.latency.value_at_quantile(0.5) as f64 / 1e3;
        }
        for (cost, batched) in costs[2..].iter_mut().zip([false, true]) {
            let export = load::export(server.address, batched, 0).await?;
            *cost = export.seconds * 1e6 / export.operations.max(1) as f64;
        }
        Ok(costs)
    });
    costs.map_err(|failure: compare::client::Failure| failure.message)
}
