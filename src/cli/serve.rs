//! `billstream serve`, `check` and `restore`: the commands that open the database.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use std::{process, thread};

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use billstream::server::{self, Address};
use billstream::{Config, Server};

use super::failure::{Failure, Result};
use super::logging::log_from;
use super::settings::Settings;
use super::stderr::say;
use super::{advice, machine, systemd};

const SERVE: &str = "\
Prints `listening on HOST:PORT` on stdout once it serves, a line an address. The limit on open files is raised to the
highest that the system gives. The log goes to stderr; RUST_LOG sets its
level (default: info). A signal stops it: open calls have --drain-timeout-ms to end, and the exit code is 0. A second
signal ends it at once, with code 1; nothing acknowledged is lost by that either.";

/// Serves a database until SIGTERM or SIGINT
#[derive(Args)]
#[command(after_help = SERVE)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

/// Prints the configuration in force, checks the database and prints what it found
#[derive(Args)]
#[command(
    after_help = "Warnings say what is unwise here, and what to do. The exit code is 1 when the database is not sound."
)]
pub struct Check {
    /// Print the settings that are at their defaults too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    settings: Settings,
}

const RESTORE: &str = "\
The backup is checked first. What was there is kept beside the database, as FILE.before-restore; its log is brought
into it before. Interrupted at any moment, the old database or the new one is there, whole; or, where that log cannot
be brought into it, an empty file that no server serves until this is run again.";

/// Puts a backup in the place of the database, which no server may have
#[derive(Args)]
#[command(after_help = RESTORE)]
pub struct Restore {
    /// The backup, which stays as it is
    #[arg(long, value_name = "BACKUP")]
    from: PathBuf,
    /// Do not keep what is there now
    #[arg(long)]
    discard_old: bool,
    #[command(flatten)]
    settings: Settings,
}

pub fn serve(args: &Serve) -> Result<()> {
    let config = args.settings.resolve()?.config;
    if config.listen.is_empty() {
        return Err(Failure::Usage(
            "--listen: nobody could call a server without an address".into(),
        ));
    }
    log_from("info", config.log_format);
    // Before the server starts, so that no signal is lost or ends the process half way.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|e| Failure::io("signals", e))?;
    machine::raise_open_files();
    let server = Server::start(config.clone())?;
    let lines = server.addresses().iter().map(|address| format!("listening on {address}\n"));
    print(&lines.collect::<String>())?;
    systemd::serving(server.addresses());
    if let Some(address) = server.addresses().first() {
        log::info!("try it from here: billstream summary --addr {}", near(address));
    }
    log_advice(&config);
    signals.forever().next();
    systemd::stopping(Duration::from_millis(config.drain_timeout_ms));
    thread::spawn(move || {
        signals.forever().next();
        process::exit(1);
    });
    // The log has its report.
    server.shutdown()?;
    Ok(())
}

/// An address as a client on this machine calls it.
fn near(address: &Address) -> String {
    match address {
        Address::Tcp(address) if address.ip().is_unspecified() => {
            let local: IpAddr = match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            SocketAddr::new(local, address.port()).to_string()
        }
        address => address.to_string(),
    }
}

/// After where it listens, which is what most look for. What matters only at the limits is for `check`.
fn log_advice(config: &Config) {
    let machine = machine::read(config);
    for advice in advice::at_any_time(config, &machine) {
        log::warn!("{advice}");
    }
    for advice in advice::at_the_limits(config, &machine) {
        log::debug!("{advice}");
    }
}

pub fn check(args: &Check) -> Result<()> {
    let in_force = args.settings.resolve()?;
    print(&in_force.to_toml(args.all))?;
    let machine = machine::read(&in_force.config);
    print(&format!(
        "memory for all clients: at most {}\n",
        advice::memory_bound(&in_force.config)
    ))?;
    for advise in [advice::at_any_time, advice::at_the_limits] {
        for advice in advise(&in_force.config, &machine) {
            print(&format!("warning: {advice}\n"))?;
        }
    }
    if !server::core_is_patched() {
        print(&format!("note: {}\n", server::UNPATCHED))?;
    }
    let report = server::check(&in_force.config)?;
    print(&format!("{report}\n"))?;
    match report.faults.len() {
        0 => Ok(()),
        faults => Err(Failure::Failed(format!("the database has {faults} faults"))),
    }
}

pub fn restore(args: &Restore) -> Result<()> {
    let Config { db, log_format, .. } = args.settings.resolve()?.config;
    log_from("warn", log_format);
    let restored = server::restore(&args.from, &db, !args.discard_old)?;
    say(format!("{}: {} invoices", db.display(), restored.invoice_count));
    if let Some(kept) = restored.kept {
        say(format!("what was there before is in {}", kept.display()));
    }
    Ok(())
}

/// Prints on stdout, at once.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::stdout)
}
