//! The flags that say where the calls of a command go, and how.

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use tempfile::TempDir;

use billstream::client::Client;
use billstream::config::LogFormat;
use billstream::Config;

use super::failure::{describe, Failure, Result};
use super::interrupt;
use super::logging::log_from;
use super::progress::Progress;
use super::security::{self, Security};

/// The flags of every command that is a client.
pub struct Connection {
    flags: Flags,
    /// Whether the command line names a server.
    is_addr_given: bool,
}

#[derive(Args)]
struct Flags {
    /// The server, as HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "BILLSTREAM_ADDR",
        default_value = "127.0.0.1:50051",
        value_parser = address
    )]
    addr: String,
    /// A database file, in the place of a server: the command works on it by itself. It is opened as a
    /// server would, which brings an older one up to date; one that a server has is refused. (A backup changes
    /// nothing of it, and takes one that a server has)
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// Go through the proxy that http_proxy, https_proxy and no_proxy name; by default they do not
    /// count
    #[arg(long, env = "BILLSTREAM_HTTP_PROXY",
        value_parser = clap::builder::BoolishValueParser::new())]
    http_proxy: bool,
    /// How long to go on trying, in seconds, after the connection was lost or the server said that
    /// trying again may help; counted anew after each progress. 0: fail at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry_for_secs: u64,
    #[command(flatten)]
    security: Security,
}

impl Args for Connection {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for Connection {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Connection, clap::Error> {
        refuse_both(matches)?;
        let is_addr_given = is_flag(matches, "addr");
        Flags::from_arg_matches(matches).map(|flags| Connection { flags, is_addr_given })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        refuse_both(matches)?;
        *self = Connection::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Refuses a server beside a file. clap's own `conflicts_with` would count a variable of the environment too,
/// which a flag is to win over.
fn refuse_both(matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
    let of_a_server = [("addr", "--addr <ADDRESS>"), ("http_proxy", "--http-proxy")];
    for (name, shown) in of_a_server.into_iter().chain(security::FLAGS) {
        if is_flag(matches, "db") && is_flag(matches, name) {
            let mut error = clap::Error::new(ErrorKind::ArgumentConflict);
            for (kind, arg) in
                [(ContextKind::InvalidArg, "--db <FILE>"), (ContextKind::PriorArg, shown)]
            {
                error.insert(kind, ContextValue::String(arg.to_owned()));
            }
            return Err(error);
        }
    }
    Ok(())
}

fn is_flag(matches: &ArgMatches, name: &str) -> bool {
    matches.value_source(name) == Some(ValueSource::CommandLine)
}

impl Connection {
    /// Whether the command line names a server: for a command that goes to a file otherwise.
    pub fn is_of_a_server(&self) -> bool {
        self.is_addr_given
    }

    pub fn db(&self) -> Option<&Path> {
        self.flags.db.as_deref()
    }

    /// A client that notes its further tries beside `progress`, and is stopped by Ctrl-C. That of a server
    /// connects at its first call; a file must be there.
    pub fn client(&self, progress: &Progress) -> Result<Client> {
        self.db().map_or(Ok(()), refuse_absent)?;
        self.client_or_new_file(progress)
    }

    /// As [`Connection::client`]; a file that is not there is created.
    pub fn client_or_new_file(&self, progress: &Progress) -> Result<Client> {
        self.client_of(self.db(), progress)
    }

    /// As [`Connection::client_or_new_file`], for what changes nothing: for a file that is not there, an empty one in
    /// a directory that is to be kept for as long as the client, and then is gone.
    pub fn client_or_empty_file(&self, progress: &Progress) -> Result<(Client, Option<TempDir>)> {
        let is_new = |db: &&Path| fs::metadata(db).map_or(true, |file| file.len() == 0);
        let Some(db) = self.db().filter(is_new) else {
            return Ok((self.client_or_new_file(progress)?, None));
        };
        let of_temporary = |error| Failure::io("a temporary directory", error);
        let directory = tempfile::tempdir().map_err(of_temporary)?;
        let stand_in = directory.path().join(db.file_name().unwrap_or_default());
        Ok((self.client_of(Some(&stand_in), progress)?, Some(directory)))
    }

    fn client_of(&self, db: Option<&Path>, progress: &Progress) -> Result<Client> {
        // Before a file is opened, which an interrupted process would leave with its log.
        interrupt::watch()?;
        let Flags { addr, http_proxy, retry_for_secs: seconds, security, db: _ } = &self.flags;
        let client = match db {
            Some(db) => open(db)?,
            None => security.connect(addr, *http_proxy)?,
        };
        let (seconds, note) = (*seconds, progress.notes());
        let client = client.with_retries(Duration::from_secs(seconds));
        Ok(client.with_stop(&interrupt::stop()).on_retry(move |error, delay| {
            note(&format!(
                "{}; trying again in {} ms (giving up after {seconds} s)",
                describe(error),
                delay.as_millis()
            ))
        }))
    }
}

/// What only reads or changes rows makes no database of a mistyped name.
fn refuse_absent(db: &Path) -> Result<()> {
    let cannot = |why: &dyn std::fmt::Display| format!("--db {}: {why}", db.display());
    let metadata = fs::metadata(db).map_err(|error| Failure::Usage(cannot(&error)))?;
    match metadata.is_file() && metadata.len() == 0 {
        true => Err(Failure::Failed(cannot(&"the file is empty"))),
        false => Ok(()),
    }
}

/// Opens a file as a server would, whose log is this command's too.
fn open(db: &Path) -> Result<Client> {
    log_from("warn", LogFormat::Text);
    let config = Config {
        db: db.to_owned(),
        // What keeps a server's clients from each other: here is one, and rows past memory wait on disk.
        max_upload_rows: 1_000_000_000,
        max_upload_bytes: 1 << 40,
        ..Config::default()
    };
    Client::open_with(config).map_err(|error| {
        let message = error.to_string();
        match message.rsplit_once("another server is serving it on ") {
            Some((_, addresses)) => {
                // Any of them will do.
                let address = addresses.split(", ").next().unwrap_or(addresses);
                Failure::Failed(format!("{message}: use --addr {address}"))
            }
            None => error.into(),
        }
    })
}

/// Checks HOST:PORT or unix:PATH. gRPC itself would take a bare host, and then port 443, and would look for a
/// server of any name, whatever is in it.
fn address(text: &str) -> std::result::Result<String, String> {
    let is_right = match text.strip_prefix("unix:") {
        Some(path) => !path.is_empty(),
        None => text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port)),
    };
    match is_right {
        true => Ok(text.to_owned()),
        false => Err("expected HOST:PORT such as 127.0.0.1:50051, or unix:PATH".to_owned()),
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => {
            let (address, zone) =
                host.split_once('%').map_or((host, None), |(address, zone)| (address, Some(zone)));
            address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_name)
        }
        None => is_name(host),
    }
}

fn is_name(name: &str) -> bool {
    let is_in_names = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !name.is_empty() && name.chars().all(is_in_names)
}

fn is_port(port: &str) -> bool {
    // `parse` takes a sign.
    !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_is_a_host_and_a_port_or_a_socket_file() {
        for right in [
            "127.0.0.1:50051",
            "localhost:1",
            "my-host.example.org.:50051",
            "some_service:50051",
            "[::1]:50051",
            "[fe80::1%eth0]:50051",
            "unix:/run/bills.sock",
            "unix:bills.sock",
        ] {
            assert_eq!(address(right).as_deref(), Ok(right));
        }
        for wrong in [
            "",
            "localhost",
            ":50051",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "localhost:+1",
            "localhost:1 ",
            " localhost:1",
            "local host:1",
            "http://localhost:50051",
            "localhost/path:50051",
            "user@localhost:50051",
            "::1:50051",
            "[::1:50051",
            "[localhost]:50051",
            "[::1%]:50051",
            "[]:50051",
            "unix:",
            "/run/bills.sock",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
