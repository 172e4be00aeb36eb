//! The one table from [`Error`] to a [`Status`].
//!
//! Whatever an error quotes, its status is small: gRPC's clients refuse trailers of over 8 KiB, and show
//! RESOURCE_EXHAUSTED in place of what went wrong.

use crate::error::{head, Error, Violation, Violations};
use crate::status::{Code, Status};

/// The most bytes of a message, encoded as in the trailers of gRPC.
const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// The most bytes of the violations. In the details they have the message again, and on the wire they are a
/// third more; together with the message 6.4 KiB at the most: the rest is for what gRPC and proxies add.
const MAX_VIOLATIONS_BYTES: usize = (4 << 10) - (MAX_MESSAGE_BYTES + 128);
/// What the encoding of a violation adds to its two texts at the most: three tags and three lengths.
const AROUND_BYTES: usize = 9;
/// The most bytes of a violation's field and of its description: 16 of the usual ones fit.
const MAX_FIELD_BYTES: usize = 256;
const MAX_DESCRIPTION_BYTES: usize = 512;

/// The code that a client gets for `error`.
pub fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::NotFound(_) => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::Aborted(_) => Code::Aborted,
        Error::Exhausted { .. } => Code::ResourceExhausted,
        Error::Unauthenticated(_) => Code::Unauthenticated,
        Error::PermissionDenied(_) => Code::PermissionDenied,
        Error::DeadlineExceeded(_) => Code::DeadlineExceeded,
        Error::Cancelled => Code::Cancelled,
        Error::Unavailable(_) => Code::Unavailable,
        Error::Unusable(_) | Error::Malformed(_) | Error::Internal(_) => Code::Internal,
    }
}

/// The status that a client gets for `error`.
pub fn status(error: &Error) -> Status {
    let message = error.to_string();
    let plain = Status::new(code(error), shortened(message.clone()));
    match error {
        Error::Invalid(found) => Status { violations: violations(found), ..plain },
        Error::Exhausted { retry_after, .. } => Status { retry_delay: *retry_after, ..plain },
        Error::Cancelled => {
            log::debug!("a call was cancelled by its client");
            plain
        }
        _ if plain.code == Code::Internal => {
            let id = uuid::Uuid::now_v7();
            log::error!("{id}: {message}");
            Status::new(Code::Internal, format!("a fault of the server; its log has it as {id}"))
        }
        _ => plain,
    }
}

/// The message as it is, or its beginning. What is no printable ASCII takes three bytes on the wire.
fn shortened(mut message: String) -> String {
    const CUT: &str = "...";
    let mut encoded = 0;
    let mut fits = 0;
    for (at, c) in message.char_indices() {
        let bytes = if matches!(c, ' '..='~') && c != '%' { 1 } else { 3 * c.len_utf8() };
        encoded += bytes;
        if encoded > MAX_MESSAGE_BYTES {
            message.truncate(fits);
            return message + CUT;
        }
        if encoded <= MAX_MESSAGE_BYTES - CUT.len() {
            fits = at + c.len_utf8();
        }
    }
    message
}

/// As many of the violations as there is room for.
fn violations(found: &Violations) -> Vec<Violation> {
    let mut left = MAX_VIOLATIONS_BYTES;
    let fitting = found.iter().map_while(|Violation { field, description }| {
        let (field, description) =
            (head(field, MAX_FIELD_BYTES), head(description, MAX_DESCRIPTION_BYTES));
        left = left.checked_sub(field.len() + description.len() + AROUND_BYTES)?;
        Some(Violation::new(field, description))
    });
    fitting.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_short_message_is_told_as_it_is(message in ".{0,80}") {
            let status = status(&Error::Aborted(message.clone()));
            prop_assert_eq!(status.message, message);
        }
    }

    #[test]
    fn a_long_message_is_told_up_to_the_limit() {
        for (message, head) in
            [("x".repeat(5000), 1021), ("%".repeat(5000), 340), ("é".repeat(5000), 170)]
        {
            let status = status(&Error::Aborted(message));
            assert!(status.message.ends_with("..."));
            assert_eq!(status.message.chars().count() - 3, head);
        }
        let exact = "x".repeat(1024);
        assert_eq!(status(&Error::Aborted(exact.clone())).message, exact);
    }
}
