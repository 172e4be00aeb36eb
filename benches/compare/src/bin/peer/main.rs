//! The two tonic servers that billstream is measured beside.
//!
//! They share the checks and the SQL (`compare::rules`, `compare::store`), and differ in how work
//! is scheduled and how rows become bytes: `idiomatic` as tonic's documentation and the usual
//! advice have it, `tuned` as well as we know.

mod codec;
mod idiomatic;
mod lanes;
mod tuned;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    mode: Mode,
    /// The database file; created when it does not exist.
    #[arg(long)]
    db: PathBuf,
    /// HOST:PORT; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

#[derive(Clone, ValueEnum)]
enum Mode {
    Idiomatic,
    Tuned,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    compare::store::migrate(&mut compare::store::open(&args.db)?)?;
    match args.mode {
        Mode::Idiomatic => idiomatic::serve(args.db, &args.listen),
        Mode::Tuned => tuned::serve(args.db, &args.listen),
    }
}

/// Binds, and says where, as billstream does.
async fn listen(address: &str) -> Result<TcpIncoming, Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(TcpIncoming::from(listener).with_nodelay(Some(true)))
}

/// Ends the call here if it was cancelled. tonic shows a cancel as the end of the requests, like a
/// half-close, so without this an upload that is cancelled would be created in part. Once the
/// handler waits, hyper looks for a reset, which has come by then, and drops the handler.
async fn settle() {
    tokio::task::yield_now().await;
}
