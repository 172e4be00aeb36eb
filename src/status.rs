//! How a call ended, for its client: what gRPC calls a status, without gRPC.

use std::fmt;
use std::time::Duration;

use crate::error::Violation;

/// The canonical codes of gRPC; the numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// No error.
    Ok = 0,
    /// The caller cancelled it, or stopped its client.
    Cancelled = 1,
    /// Nobody said more: often a connection that ended within a call.
    Unknown = 2,
    /// The request is malformed: [`Status::violations`] names its fields.
    InvalidArgument = 3,
    /// The caller's deadline passed, or one of the server's limits on time; the message says which.
    DeadlineExceeded = 4,
    /// There is no such invoice.
    NotFound = 5,
    /// An `invoice_id` is taken.
    AlreadyExists = 6,
    /// The caller is known, and may not call this: its token, or its certificate, is without the right.
    PermissionDenied = 7,
    /// A limit was reached; where waiting helps, [`Status::retry_delay`] says how long.
    ResourceExhausted = 8,
    /// The call cannot be made in this state, such as on an upload that failed before.
    FailedPrecondition = 9,
    /// A commit does not match what arrived, or its `batch_id` was used for other content.
    Aborted = 10,
    /// A value is past a bound. This server has no such answer.
    OutOfRange = 11,
    /// The server has no such method, or not with this compression.
    Unimplemented = 12,
    /// A fault of the server, or of the disk; the message has the id under which the server's log says more.
    Internal = 13,
    /// There is no server, or it is stopping, or its database is busy. Nothing acknowledged is lost.
    Unavailable = 14,
    /// Data is lost: a backup that came is not whole. This server has no such answer.
    DataLoss = 15,
    /// The caller has not shown who it is: its token is missing, malformed, unknown or expired.
    Unauthenticated = 16,
}

impl Code {
    const ALL: [(Code, &'static str); 17] = [
        (Code::Ok, "OK"),
        (Code::Cancelled, "CANCELLED"),
        (Code::Unknown, "UNKNOWN"),
        (Code::InvalidArgument, "INVALID_ARGUMENT"),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Code::NotFound, "NOT_FOUND"),
        (Code::AlreadyExists, "ALREADY_EXISTS"),
        (Code::PermissionDenied, "PERMISSION_DENIED"),
        (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
        (Code::FailedPrecondition, "FAILED_PRECONDITION"),
        (Code::Aborted, "ABORTED"),
        (Code::OutOfRange, "OUT_OF_RANGE"),
        (Code::Unimplemented, "UNIMPLEMENTED"),
        (Code::Internal, "INTERNAL"),
        (Code::Unavailable, "UNAVAILABLE"),
        (Code::DataLoss, "DATA_LOSS"),
        (Code::Unauthenticated, "UNAUTHENTICATED"),
    ];

    /// How many there are.
    pub(crate) const COUNT: usize = Code::ALL.len();

    /// The code with this number; [`Code::Unknown`] where there is none.
    pub fn from_number(number: i32) -> Code {
        let known = usize::try_from(number).ok().and_then(|number| Code::ALL.get(number));
        known.map_or(Code::Unknown, |(code, _)| *code)
    }

    /// Its name in the specification of gRPC, such as `RESOURCE_EXHAUSTED`.
    pub fn name(self) -> &'static str {
        Code::ALL[self as usize].1
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of failure it is: what a program decides by.
    pub code: Code,
    /// What happened, for a person.
    pub message: String,
    /// The malformed fields (`google.rpc.BadRequest`), 16 at the most.
    pub violations: Vec<Violation>,
    /// How long to wait before the call is tried again, where waiting helps (`google.rpc.RetryInfo`).
    pub retry_delay: Option<Duration>,
}

impl Status {
    /// A status without details.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into(), violations: Vec::new(), retry_delay: None }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message[..] {
            "" => self.code.fmt(f),
            message => write!(f, "{}: {message}", self.code),
        }
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_grpc() {
        for (number, (code, _)) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, number);
            assert_eq!(Code::from_number(number as i32), *code);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(-1), Code::Unknown);
    }
}
