//! `billstream token`: tokens with which calls are made.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use time::OffsetDateTime;

use billstream::tokens::{self, Entry, Proof, Rights, Tokens};

use super::failure::{Failure, Result};
use super::output::stdout;
use super::stderr::say;
use super::values;

/// Makes tokens, with which a server that has --tokens is called
#[derive(Args)]
pub struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(New),
}

/// Prints a new token, and the line that lets it in
///
/// The token goes to stdout, once: what a server keeps is its SHA-256, which does not lead back to it. The line for
/// the server's file goes to stderr, or with --append-to into the file, which a running server reads again within
/// seconds.
#[derive(Args)]
struct New {
    /// Who it is for: limits and the log go by this name; it may have several tokens
    #[arg(value_parser = name)]
    name: String,
    /// What it may call, with commas between: read, write, admin
    #[arg(long, value_name = "RIGHTS")]
    rights: Rights,
    /// When it ends: an RFC 3339 time, or a date, which is its midnight in UTC
    #[arg(long, value_name = "TIME", value_parser = expires)]
    expires: Option<OffsetDateTime>,
    /// The server's file; created, for its owner alone, when it does not exist
    #[arg(long, value_name = "FILE")]
    append_to: Option<PathBuf>,
}

fn name(text: &str) -> std::result::Result<String, String> {
    tokens::name(text).map(|name| name.to_string())
}

fn expires(text: &str) -> std::result::Result<OffsetDateTime, String> {
    let time = values::time_or_date(text)?;
    let time = OffsetDateTime::from_unix_timestamp(time.seconds).map_err(|e| e.to_string())?;
    match time > OffsetDateTime::now_utc() {
        true => Ok(time),
        false => Err("the time is past".to_owned()),
    }
}

pub fn run(args: &Token) -> Result<()> {
    let Command::New(args) = &args.command;
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::Failed(format!("no random bytes: {error}")))?;
    let token = tokens::token(&random);
    let hash = tokens::hash(token.as_bytes());
    let entry = Entry {
        name: args.name[..].into(),
        rights: args.rights,
        proof: Proof::Token(hash, args.expires),
    };
    // Before the token is shown: what is printed works.
    match &args.append_to {
        Some(path) => {
            append(path, &entry)?;
            say(format!("{}: has {} now", path.display(), entry.name));
        }
        None => say(&entry),
    }
    let mut out = stdout();
    writeln!(out, "{token}").and_then(|()| out.flush()).map_err(Failure::stdout)
}

/// Appends the entry to a file that is sound with it.
fn append(path: &Path, entry: &Entry) -> Result<()> {
    let failed = |error| Failure::io(&path.display().to_string(), error);
    let before = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.map_err(failed)?,
    };
    let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let line = format!("{end}{entry}\n");
    let whole = format!("{before}{line}").parse::<Tokens>();
    whole.map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))?;
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
