//! How a command fails: what it prints, and its exit code.

use std::io;

use billstream::client::{self, Code};
use billstream::error::Error;

use super::interrupt;
use super::stderr::say;

/// What every step of a command returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// The command line, the configuration or an input file is wrong.
    Usage(String),
    /// Something went wrong at run time: a file, a port, a disk.
    Failed(String),
    /// A call ended with a status other than OK.
    Rpc(client::Error),
    /// Whoever read our stdout has closed it, such as `head`.
    StdoutClosed,
    /// Ctrl-C, and how to go on where there is something to say of it.
    Interrupted(String),
}

impl Failure {
    /// A failure of the input or output `what`.
    pub fn io(what: &str, error: io::Error) -> Failure {
        Failure::Failed(format!("{what}: {error}"))
    }

    /// A failure to write to stdout.
    pub fn stdout(error: io::Error) -> Failure {
        Failure::output("stdout", error)
    }

    /// A failure to write to `name`, which may be stdout.
    pub fn output(name: &str, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
            _ => Failure::io(name, error),
        }
    }

    /// Says how to go on after Ctrl-C.
    pub fn or_go_on(self, how: impl FnOnce() -> String) -> Failure {
        match self {
            Failure::Interrupted(_) => Failure::Interrupted(how()),
            other => other,
        }
    }

    /// See "Exit codes" in `billstream --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Rpc(_) | Failure::StdoutClosed => 1,
            Failure::Usage(_) => 2,
            Failure::Interrupted(_) => 130,
        }
    }

    /// Says on stderr what went wrong.
    pub fn print(&self) {
        match self {
            Failure::StdoutClosed => say("error: stdout was closed before all of it was written"),
            Failure::Usage(message) | Failure::Failed(message) => say(format!("error: {message}")),
            Failure::Interrupted(how) if how.is_empty() => say("interrupted"),
            Failure::Interrupted(message) => say(format!("interrupted: {message}")),
            Failure::Rpc(error) => print_error(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Invalid(_) => Failure::Usage(error.to_string()),
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        match error.code {
            Code::Cancelled if interrupt::is_requested() => Failure::Interrupted(String::new()),
            _ => Failure::Rpc(error),
        }
    }
}

/// For a command that only prints: a reader that has enough, such as `head`, is no failure of it.
pub fn enough(result: Result<()>) -> Result<()> {
    match result {
        Err(Failure::StdoutClosed) => Ok(()),
        other => other,
    }
}

/// `UNAVAILABLE: the database is busy`; that there is no server is said in plain words.
pub fn describe(error: &client::Error) -> String {
    match error.message.starts_with("no server answers at ") {
        true => error.message.replacen(" (", &format!(" ({}: ", error.code), 1),
        false => error.to_string(),
    }
}

fn print_error(error: &client::Error) {
    say(format!("error: {}", describe(error)));
    for violation in &error.violations {
        // The message of this server names them already; that of another may not.
        if !error.message.contains(&violation.description) {
            say(format!("  {}: {}", violation.field, violation.description));
        }
    }
    if let Some(delay) = error.retry_delay {
        say(format!("  the server asks to wait {} ms before another try", delay.as_millis()));
    }
}
