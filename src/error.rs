//! What a server, its configuration or its database fails with. How a call ends is a
//! [`client::Error`](crate::client::Error).

use std::fmt;
use std::time::Duration;

/// What an operation of the library gives.
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
    /// What is wrong with `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Violation {
        Violation { field: field.into(), description: description.into() }
    }
}

/// What is malformed in one request: the first [`MAX_VIOLATIONS`], as a slice, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    first: Vec<Violation>,
    more: usize,
}

/// The most violations that are kept of a request, and told of.
pub const MAX_VIOLATIONS: usize = 16;

impl Violations {
    /// Adds what `violation` makes, which is asked only where it is kept: a message may have millions.
    pub(crate) fn add(&mut self, violation: impl FnOnce() -> Violation) {
        if self.first.len() < MAX_VIOLATIONS {
            self.first.push(violation());
        } else {
            self.more += 1;
        }
    }

    /// How many there are, those that are not kept included.
    pub fn count(&self) -> usize {
        self.first.len() + self.more
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(all: I) -> Violations {
        let mut violations = Violations::default();
        all.into_iter().for_each(|violation| violations.add(|| violation));
        violations
    }
}

impl std::ops::Deref for Violations {
    type Target = [Violation];

    fn deref(&self) -> &[Violation] {
        &self.first
    }
}

/// `value` in quotes, with escapes, for a message; of a long one the beginning and the length.
#[doc(hidden)]
pub fn quoted(value: &str) -> String {
    let head = head(value, MAX_QUOTED_BYTES);
    match head.len() == value.len() {
        true => format!("{value:?}"),
        false => format!("{head:?}... ({} bytes)", value.len()),
    }
}

/// The most bytes of a value that [`quoted`] gives back.
const MAX_QUOTED_BYTES: usize = 64;

/// The first characters of `text`, in at most `max_bytes`.
pub(crate) fn head(text: &str, max_bytes: usize) -> &str {
    let ends = (0..=max_bytes.min(text.len())).rev();
    // OK because 0 is a boundary.
    &text[..ends.into_iter().find(|end| text.is_char_boundary(*end)).unwrap_or_default()]
}

/// Why an operation failed. The variants are the conditions a caller can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request is malformed: it fails again however often it is sent.
    Invalid(Violations),
    /// What was asked for is not there.
    NotFound(String),
    /// An id of the request is taken.
    AlreadyExists(String),
    /// An upload's commit does not match what arrived.
    Aborted(String),
    /// A limit is reached; where waiting helps, for how long to wait.
    Exhausted {
        /// Which limit, and what to do.
        message: String,
        /// `None` where waiting does not help.
        retry_after: Option<Duration>,
    },
    /// The caller has not shown who it is.
    Unauthenticated(String),
    /// The caller is known, and may not call this.
    PermissionDenied(String),
    /// A limit on time passed; the message says which.
    DeadlineExceeded(String),
    /// The client cancelled the call or went away.
    Cancelled,
    /// The database is busy or out of disk, or the server is stopping. Nothing is lost.
    Unavailable(String),
    /// The database file, the configuration or the address cannot be used: the server does not start.
    Unusable(String),
    /// The database file is damaged. The text is for the log, not for the client.
    Malformed(String),
    /// A fault of ours or of the disk. The text is for the log, not for the client.
    Internal(String),
}

impl Error {
    /// One malformed field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Error {
        Error::Invalid([Violation::new(field, description)].into_iter().collect())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(violations) => {
                if violations.more > 0 {
                    let (all, first) = (violations.count(), violations.len());
                    write!(f, "{all} violations, of which the first {first} are: ")?;
                }
                for (i, violation) in violations.iter().enumerate() {
                    let separator = if i == 0 { "" } else { "; " };
                    write!(f, "{separator}{}: {}", violation.field, violation.description)?;
                }
                Ok(())
            }
            Error::NotFound(message)
            | Error::AlreadyExists(message)
            | Error::Aborted(message)
            | Error::Exhausted { message, .. }
            | Error::Unauthenticated(message)
            | Error::PermissionDenied(message)
            | Error::DeadlineExceeded(message)
            | Error::Unavailable(message)
            | Error::Unusable(message)
            | Error::Malformed(message)
            | Error::Internal(message) => f.write_str(message),
            Error::Cancelled => f.write_str("cancelled by the client"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quoted_value_is_short_and_itself_where_it_can_be(value in "\\PC{0,100}|[\\x00-\\x1f]{0,100}") {
            let quoted = quoted(&value);
            prop_assert!(quoted.len() < 8 * MAX_QUOTED_BYTES);
            prop_assert_eq!(quoted == format!("{value:?}"), value.len() <= MAX_QUOTED_BYTES);
        }
    }

    #[test]
    fn of_many_violations_the_first_are_kept_and_all_are_counted() {
        let all = (0..100).map(|i| Violation::new(format!("statuses[{i}]"), "is wrong"));
        let violations: Violations = all.collect();
        assert_eq!((violations.len(), violations.count()), (MAX_VIOLATIONS, 100));
        let message = Error::Invalid(violations).to_string();
        assert!(message.starts_with("100 violations, of which the first 16 are: statuses[0]: is"));
        assert!(message.ends_with("; statuses[15]: is wrong"), "{message}");
    }
}
