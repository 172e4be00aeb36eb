//! `billstream backup`: from a file, or from a server.

use std::io;
use std::path::PathBuf;

use clap::Args;

use billstream::{client, server, Error};

use super::connection::Connection;
use super::failure::{Failure, Result};
use super::progress::Progress;
use super::settings::Settings;
use super::stderr::say;

/// Copies a database into a new file, also while it is being served
///
/// With --addr the copy comes from a server, from wherever that is; else it is of the database file that `serve`
/// would have (--db), which this reads by itself. The file has its name when it is whole and on the disk, and one
/// that came from a server when it was checked too: a backup that was interrupted leaves none.
#[derive(Args)]
pub struct Backup {
    /// The file to create
    dest: PathBuf,
    /// A TOML file with settings, of which this takes db
    #[arg(long, value_name = "FILE", env = "BILLSTREAM_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Backup) -> Result<()> {
    let bytes = match args.connection.is_of_a_server() {
        true => from_server(args)?,
        false => from_file(args)?,
    };
    say(format!("{}: {bytes} bytes", args.dest.display()));
    Ok(())
}

fn from_file(args: &Backup) -> Result<u64> {
    let flags = [("config", args.config.as_deref()), ("db", args.connection.db())];
    let settings =
        Settings::with(flags.into_iter().filter_map(|(name, value)| Some((name, value?))))?;
    Ok(server::backup(&settings.resolve()?.config.db, &args.dest)?)
}

fn from_server(args: &Backup) -> Result<u64> {
    let progress = Progress::bytes(0);
    let client = args.connection.client(&progress)?;
    let result = client.backup_to(&args.dest, |bytes, of| {
        progress.set_bytes(of);
        progress.set(bytes);
    });
    result.map_err(|error| failure(error, args))
}

/// The failure of the call or of the file that is in `error`.
fn failure(error: io::Error, args: &Backup) -> Failure {
    match error.downcast::<client::Error>() {
        Ok(error) => error.into(),
        Err(error) => match error.downcast::<Error>() {
            Ok(error) => error.into(),
            Err(error) => Failure::io(&args.dest.display().to_string(), error),
        },
    }
}
