//! Loads a server once, by hand: `load 127.0.0.1:50051 export --batched`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use compare::client::Guard;
use compare::load::{self, Unary};

#[derive(Parser)]
struct Args {
    address: SocketAddr,
    #[command(subcommand)]
    load: Load,
    /// For the loads that last as long as one likes.
    #[arg(long, default_value_t = 2, global = true)]
    seconds: u64,
}

#[derive(Subcommand)]
enum Load {
    /// One export to its end.
    Export {
        #[arg(long)]
        batched: bool,
        #[arg(long, default_value_t = 0)]
        max_rows: i64,
        /// Leave h2's guard against small frames as it is.
        #[arg(long)]
        guarded: bool,
    },
    Summary {
        #[arg(default_value_t = 1)]
        callers: usize,
    },
    List {
        #[arg(default_value_t = 1)]
        callers: usize,
    },
    /// The first row of an export, over and over.
    FirstRow,
    /// One upload.
    Bulk {
        #[arg(default_value_t = 100_000)]
        rows: usize,
    },
    /// 16 clients that upload 100 rows over and over.
    Uploaders,
    /// Clients that send one event at a time.
    Reconcile {
        #[arg(default_value_t = 64)]
        clients: usize,
    },
    /// One client that does not wait for acknowledgements.
    Pipeline {
        #[arg(default_value_t = 100_000)]
        events: usize,
    },
    /// 100 unary calls a second beside exports.
    Beside {
        #[arg(default_value_t = 8)]
        exports: usize,
    },
}

fn main() {
    let args = Args::parse();
    let (address, duration) = (args.address, Duration::from_secs(args.seconds));
    let outcome = load::run(async {
        match args.load {
            Load::Export { batched, max_rows, guarded } => {
                let guard = if guarded { Guard::Default } else { Guard::Raised };
                load::export_with(address, batched, max_rows, guard).await
            }
            Load::Summary { callers } => {
                load::unary(address, Unary::summary(), callers, duration).await
            }
            Load::List { callers } => load::unary(address, Unary::list(), callers, duration).await,
            Load::FirstRow => load::unary(address, Unary::first_row(), 1, duration).await,
            Load::Bulk { rows } => load::bulk_create(address, rows).await,
            Load::Uploaders => load::uploaders(address, 16, 100, duration).await,
            Load::Reconcile { clients } => load::reconcile(address, clients, duration).await,
            Load::Pipeline { events } => load::pipeline(address, events).await,
            Load::Beside { exports } => {
                load::beside_exports(address, Unary::summary(), exports, 100, duration).await
            }
        }
    });
    match outcome {
        Ok(done) => {
            let at = |quantile| done.latency.value_at_quantile(quantile) as f64 / 1e3;
            println!(
                "{} operations, {:.3} s, {:.0} a second; latency in us: p50 {:.0} p99 {:.0} p99.9 {:.0}",
                done.operations,
                done.seconds,
                done.operations as f64 / done.seconds,
                at(0.5),
                at(0.99),
                at(0.999),
            );
            println!("{:?}", done.tally);
        }
        Err(failure) => {
            eprintln!("status {:?}: {}", failure.code, failure.message);
            std::process::exit(1);
        }
    }
}
