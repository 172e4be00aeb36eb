//! What a program gets that embeds the server: exports and summaries in process. `benches/compare` measures it beside
//! the same work without a server.
//!
//! `cargo run --release --example local -- FILE ROWS` prints invoices a second and microseconds a summary.

use std::hint::black_box;
use std::time::Instant;

use billstream::client::Result;
use billstream::proto::report::{ExportRequest, SummaryRequest};
use billstream::{Client, Config, Server};

/// Of which one is the median.
const SUMMARIES: usize = 20_001;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let [_, db, rows] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: local FILE ROWS".into());
    };
    let max_rows = rows.parse()?;
    let config = Config { db: db.into(), ..Config::default() };
    let server = Server::builder(config).without_listeners().start()?;
    let client = server.local();
    // So that caches are filled and threads are started.
    export(&client, max_rows)?;
    let start = Instant::now();
    let rows = export(&client, max_rows)?;
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} {:.2}", summary(&client)?);
    server.shutdown()?;
    Ok(())
}

/// Reads so many invoices, and tells how many there are.
fn export(client: &Client, max_rows: i64) -> Result<usize> {
    let mut rows = 0;
    for invoices in client.export(&ExportRequest { max_rows, ..Default::default() }) {
        let invoices = invoices?;
        for invoice in invoices.iter() {
            black_box(invoice);
        }
        rows += invoices.len();
    }
    Ok(rows)
}

/// The median, in microseconds.
fn summary(client: &Client) -> Result<f64> {
    let mut micros = Vec::with_capacity(SUMMARIES);
    for _ in 0..SUMMARIES {
        let start = Instant::now();
        black_box(client.summary(&SummaryRequest::default())?);
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    Ok(micros[SUMMARIES / 2])
}
