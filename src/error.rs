//! The one error type of the library. `service::status` has the one table that turns it into a
//! gRPC status.

use std::fmt;
use std::time::Duration;

pub type Result<T> = std::result::Result<T, Error>;

/// A field of a request that is malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A path to the field, such as `requests[3].currency`.
    pub field: String,
    /// What was expected.
    pub description: String,
}

impl Violation {
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Violation {
        Violation { field: field.into(), description: description.into() }
    }
}

/// Why an operation failed. The variants are the conditions a caller can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request is malformed: it fails again however often it is sent.
    Invalid(Vec<Violation>),
    /// An id of the request is taken.
    AlreadyExists(String),
    /// An upload's commit does not match what arrived.
    Aborted(String),
    /// A limit is reached; where waiting helps, for how long to wait.
    Exhausted { message: String, retry_after: Option<Duration> },
    /// A limit on time passed; the message says which.
    DeadlineExceeded(String),
    /// The client cancelled the call or went away.
    Cancelled,
    /// The database is busy or out of disk, or the server is stopping. Nothing is lost.
    Unavailable(String),
    /// The database file, the configuration or the address cannot be used: the server does not start.
    Unusable(String),
    /// A fault of ours or of the disk. The text is for the log, not for the client.
    Internal(String),
}

impl Error {
    /// One malformed field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Error {
        Error::Invalid(vec![Violation::new(field, description)])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(violations) => {
                for (i, violation) in violations.iter().enumerate() {
                    let separator = if i == 0 { "" } else { "; " };
                    write!(f, "{separator}{}: {}", violation.field, violation.description)?;
                }
                Ok(())
            }
            Error::AlreadyExists(message)
            | Error::Aborted(message)
            | Error::Exhausted { message, .. }
            | Error::DeadlineExceeded(message)
            | Error::Unavailable(message)
            | Error::Unusable(message)
            | Error::Internal(message) => f.write_str(message),
            Error::Cancelled => f.write_str("cancelled by the client"),
        }
    }
}

impl std::error::Error for Error {}
