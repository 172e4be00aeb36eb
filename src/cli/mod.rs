//! The command line: flags to calls, rows to stdout, failures to exit codes.
//!
//! One file a command; what they share is in [`failure`] (messages and exit codes), [`environment`],
//! [`settings`], [`advice`] over [`machine`], [`connection`], [`security`], [`filter`],
//! [`reading`] (rows of files), [`output`], [`table`], [`invoices`], [`events`], [`acks`], [`answer`] and [`totals`]
//! (printing), [`writing`] (files of rows), [`notation`] (amounts and times of files), [`interrupt`], [`progress`],
//! [`stderr`], [`logging`], [`systemd`], [`nearest`] and [`values`].

mod acks;
mod advice;
mod answer;
mod backup;
mod connection;
mod environment;
mod events;
mod export;
mod failure;
mod files;
mod filter;
mod generate;
mod import;
mod interrupt;
mod invoices;
mod list;
mod logging;
mod machine;
mod nearest;
mod notation;
mod output;
mod progress;
mod reading;
mod reconcile;
mod security;
mod serve;
mod settings;
mod show;
mod stderr;
mod summary;
mod systemd;
mod table;
mod token;
mod totals;
mod values;
mod writing;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::{enough, Failure, Result};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a call failed, or something else at run time: a port in use, a disk, a database; or stdout did
     not take everything
  2  a wrong command line, a wrong configuration, or a wrong input file

Data goes to stdout, everything else to stderr. A reader that has enough (`| head`) ends list, export
and generate with 0. Ctrl-C ends a client as that signal does; export, import and reconcile say how to
go on.";

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
    Show(show::Show),
    Export(export::Export),
    Import(import::Import),
    Reconcile(reconcile::Reconcile),
    Generate(generate::Generate),
    Check(serve::Check),
    Backup(backup::Backup),
    Restore(serve::Restore),
    Config(files::Config),
    Completions(files::Completions),
    Man(files::Man),
    Token(token::Token),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => environment::check(&Cli::command()).and_then(|()| cli.command.run()),
        Err(wrong) if wrong.use_stderr() => {
            let _ = wrong.print();
            return ExitCode::from(2);
        }
        // --help and --version.
        Err(text) => enough(text.print().map_err(Failure::stdout)),
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    failure.print();
    if matches!(failure, Failure::Interrupted(_)) {
        interrupt::end_process();
    }
    ExitCode::from(failure.exit_code())
}

impl Command {
    fn run(&self) -> Result<()> {
        match self {
            Command::Serve(args) => serve::serve(args),
            Command::Summary(args) => summary::run(args),
            Command::List(args) => list::run(args),
            Command::Show(args) => show::run(args),
            Command::Export(args) => export::run(args),
            Command::Import(args) => import::run(args),
            Command::Reconcile(args) => reconcile::run(args),
            Command::Generate(args) => generate::run(args),
            Command::Check(args) => serve::check(args),
            Command::Backup(args) => backup::run(args),
            Command::Restore(args) => serve::restore(args),
            Command::Config(args) => files::config(args),
            Command::Completions(args) => files::completions(args),
            Command::Man(args) => files::man(args),
            Command::Token(args) => token::run(args),
        }
    }
}
