//! The command line: flags to calls, rows to stdout, failures to exit codes.
//!
//! One file a command; what they share is in [`failure`] (messages and exit codes), [`settings`],
//! [`connection`], [`filter`], [`input`] and [`rows`] (reading), [`output`], [`invoices`]
//! and [`totals`] (writing), [`retry`], [`progress`] and [`values`].

mod connection;
mod csv_rows;
mod export;
mod failure;
mod filter;
mod generate;
mod import;
mod input;
mod invoices;
mod list;
mod ndjson_rows;
mod output;
mod progress;
mod reconcile;
mod retry;
mod rows;
mod serve;
mod settings;
mod summary;
mod totals;
mod values;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a call failed, or something else at run time: a port in use, a disk, a database
  2  a wrong command line, a wrong configuration, or a wrong input file

Data goes to stdout, everything else to stderr. A closed stdout (`| head`) ends a command quietly.";

/// A billing report server on gRPC and SQLite, and its clients
#[derive(Parser)]
#[command(name = "billstream", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Summary(summary::Summary),
    List(list::List),
    Export(export::Export),
    Import(import::Import),
    Reconcile(reconcile::Reconcile),
    Generate(generate::Generate),
    Check(serve::Check),
    Backup(serve::Backup),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
        Command::Summary(args) => summary::run(&args),
        Command::List(args) => list::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Reconcile(args) => reconcile::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Check(args) => serve::check(&args),
        Command::Backup(args) => serve::backup(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    }
}
