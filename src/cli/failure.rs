//! How a command fails: what it prints, and its exit code.

use std::io;
use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::Message;

use billstream::error::Error;
use billstream::proto::error_details::{
    bad_request::FieldViolation, BadRequest, RetryInfo, Status,
};

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
    Rpc(RpcStatus),
    /// Whoever read our stdout has closed it, such as `head`.
    StdoutClosed,
    /// Ctrl-C, and how to go on.
    Interrupted(String),
}

impl Failure {
    /// A failure of the input or output `what`.
    pub fn io(what: &str, error: io::Error) -> Failure {
        Failure::Failed(format!("{what}: {error}"))
    }

    /// A failure to write to stdout.
    pub fn stdout(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
            _ => Failure::io("stdout", error),
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
            Failure::Interrupted(message) => say(format!("interrupted: {message}")),
            Failure::Rpc(status) => print_status(status),
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

impl From<grpcio::Error> for Failure {
    fn from(error: grpcio::Error) -> Failure {
        use grpcio::Error::*;
        Failure::Rpc(match error {
            RpcFailure(status) | RpcFinished(Some(status)) => status,
            RemoteStopped | RpcFinished(None) => {
                status(RpcStatusCode::UNAVAILABLE, "the server ended the call")
            }
            other => status(RpcStatusCode::INTERNAL, &format!("in this client: {other}")),
        })
    }
}

/// For a command that only prints: a reader that has enough, such as `head`, is no failure of it.
pub fn enough(result: Result<()>) -> Result<()> {
    match result {
        Err(Failure::StdoutClosed) => Ok(()),
        other => other,
    }
}

/// A status made here, for what gRPC has no status for.
pub fn status(code: RpcStatusCode, message: &str) -> RpcStatus {
    RpcStatus::with_message(code, message.to_owned())
}

/// `UNAVAILABLE: failed to connect`, with the name of the code but not its number.
pub fn describe(status: &RpcStatus) -> String {
    let code = status.code().to_string();
    let name = code.split_once('-').map_or(code.as_str(), |(_, name)| name);
    match status.message() {
        "" => name.to_owned(),
        message => format!("{name}: {message}"),
    }
}

fn print_status(status: &RpcStatus) {
    say(format!("error: {}", describe(status)));
    for violation in violations(status) {
        // The message of this server names them already; that of another may not.
        if !status.message().contains(&violation.description) {
            say(format!("  {}: {}", violation.field, violation.description));
        }
    }
    if let Some(delay) = retry_delay(status) {
        say(format!("  the server asks to wait {} ms before another try", delay.as_millis()));
    }
}

/// The malformed fields that a status names.
pub fn violations(status: &RpcStatus) -> Vec<FieldViolation> {
    detail::<BadRequest>(status).map(|details| details.field_violations).unwrap_or_default()
}

/// How long the server asks to wait, where it says that waiting helps.
pub fn retry_delay(status: &RpcStatus) -> Option<Duration> {
    let delay = detail::<RetryInfo>(status)?.retry_delay.into_option()?;
    Some(Duration::new(delay.seconds.try_into().ok()?, delay.nanos.try_into().ok()?))
}

/// The detail of type `M` in a status. Details that cannot be read are as good as none.
fn detail<M: Message + protobuf::MessageFull>(status: &RpcStatus) -> Option<M> {
    let details = Status::parse_from_bytes(status.details()).ok()?.details;
    details.iter().find_map(|any| any.unpack::<M>().ok().flatten())
}
