//! The one table from [`Error`] to a gRPC status.
//!
//! Whatever an error quotes, its status is small: gRPC's clients refuse trailers of over 8 KiB, and show
//! RESOURCE_EXHAUSTED in place of what went wrong.

use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField, MessageFull};

use crate::error::{head, Error, Violation, Violations};
use crate::proto::error_details::bad_request::FieldViolation;
use crate::proto::error_details::{BadRequest, RetryInfo, Status};

/// The most bytes of a message, encoded as on the wire.
const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// The most bytes of the details, which have the message again; on the wire they are a third more. Together
/// with the message 6.4 KiB at the most: the rest is for what gRPC and proxies add.
const MAX_DETAILS_BYTES: usize = 4 << 10;
/// The most bytes of the details around their one detail, and of the message in them.
const AROUND_BYTES: usize = MAX_MESSAGE_BYTES + 128;
/// The most bytes of a violation's field and of its description: 16 of the usual ones fit.
const MAX_FIELD_BYTES: usize = 256;
const MAX_DESCRIPTION_BYTES: usize = 512;

/// The status that a client gets for `error`.
pub fn status(error: &Error) -> RpcStatus {
    let message = error.to_string();
    match error {
        Error::Invalid(violations) => {
            with_detail(RpcStatusCode::INVALID_ARGUMENT, message, &bad_request(violations))
        }
        Error::AlreadyExists(_) => plain(RpcStatusCode::ALREADY_EXISTS, message),
        Error::Aborted(_) => plain(RpcStatusCode::ABORTED, message),
        Error::Exhausted { retry_after: Some(delay), .. } => {
            with_detail(RpcStatusCode::RESOURCE_EXHAUSTED, message, &retry_info(*delay))
        }
        Error::Exhausted { retry_after: None, .. } => {
            plain(RpcStatusCode::RESOURCE_EXHAUSTED, message)
        }
        Error::DeadlineExceeded(_) => plain(RpcStatusCode::DEADLINE_EXCEEDED, message),
        Error::Cancelled => {
            log::debug!("a call was cancelled by its client");
            plain(RpcStatusCode::CANCELLED, message)
        }
        Error::Unavailable(_) => plain(RpcStatusCode::UNAVAILABLE, message),
        Error::Unusable(_) | Error::Malformed(_) | Error::Internal(_) => {
            let id = uuid::Uuid::now_v7();
            log::error!("{id}: {message}");
            plain(RpcStatusCode::INTERNAL, format!("a fault of the server; its log has it as {id}"))
        }
    }
}

fn plain(code: RpcStatusCode, message: String) -> RpcStatus {
    RpcStatus::with_message(code, shortened(message))
}

fn with_detail(code: RpcStatusCode, message: String, detail: &impl MessageFull) -> RpcStatus {
    let message = shortened(message);
    let status = Any::pack(detail).and_then(|detail| {
        let code = i32::from(code);
        let status =
            Status { code, message: message.clone(), details: vec![detail], ..Status::default() };
        status.write_to_bytes()
    });
    // OK because these messages have no required fields, the one thing that fails to encode.
    RpcStatus::with_details(code, message, status.expect("a status encodes"))
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
fn bad_request(violations: &Violations) -> BadRequest {
    let mut detail = BadRequest::default();
    for violation in violations.iter().map(field_violation) {
        detail.field_violations.push(violation);
        if detail.compute_size() > (MAX_DETAILS_BYTES - AROUND_BYTES) as u64 {
            detail.field_violations.pop();
            break;
        }
    }
    detail
}

fn field_violation(violation: &Violation) -> FieldViolation {
    FieldViolation {
        field: head(&violation.field, MAX_FIELD_BYTES).to_owned(),
        description: head(&violation.description, MAX_DESCRIPTION_BYTES).to_owned(),
        ..FieldViolation::default()
    }
}

fn retry_info(delay: Duration) -> RetryInfo {
    RetryInfo { retry_delay: MessageField::some(delay.into()), ..RetryInfo::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MAX_VIOLATIONS;
    use proptest::prelude::*;

    /// What gRPC counts of a status: the three headers with 32 bytes each, percent-encoded and in base64.
    fn trailer_bytes(status: &RpcStatus) -> usize {
        let encoded = |byte: u8| if matches!(byte, b' '..=b'~') && byte != b'%' { 1 } else { 3 };
        let message = status.message().bytes().map(encoded).sum::<usize>();
        let details = status.details().len().div_ceil(3) * 4;
        let names = "grpc-status00grpc-messagegrpc-status-details-bin".len();
        message + details + names + 3 * 32
    }

    /// What gRPC and a proxy may put beside it.
    const OTHERS_BYTES: usize = 1 << 10;

    fn text() -> impl Strategy<Value = String> {
        let any = ".{0,40}|[ -~]{0,40}|%{0,40}|[\\x00-\\x1f]{0,40}";
        (any, 0..2000usize).prop_map(|(text, times)| text.repeat(times))
    }

    fn invalid() -> impl Strategy<Value = Error> {
        let violation = (text(), text()).prop_map(|(field, why)| Violation::new(field, why));
        prop::collection::vec(violation, 1..40)
            .prop_map(|all| Error::Invalid(all.into_iter().collect()))
    }

    fn error() -> impl Strategy<Value = Error> {
        let retry_after = prop::option::of(any::<u32>().prop_map(|s| Duration::new(s.into(), s)));
        prop_oneof![
            4 => invalid(),
            1 => text().prop_map(Error::AlreadyExists),
            1 => text().prop_map(Error::Aborted),
            1 => text().prop_map(Error::DeadlineExceeded),
            1 => text().prop_map(Error::Unavailable),
            1 => text().prop_map(Error::Unusable),
            1 => text().prop_map(Error::Internal),
            2 => (text(), retry_after)
                .prop_map(|(message, retry_after)| Error::Exhausted { message, retry_after }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_status_fits_into_the_trailers(error in error()) {
            let status = status(&error);
            prop_assert!(trailer_bytes(&status) <= (8 << 10) - OTHERS_BYTES, "{status:?}");
            if let Error::Invalid(violations) = &error {
                let details = Status::parse_from_bytes(status.details()).unwrap();
                prop_assert_eq!(&details.message, status.message());
                let detail = details.details[0].unpack::<BadRequest>().unwrap().unwrap();
                let told = detail.field_violations.len();
                prop_assert!((1..=MAX_VIOLATIONS.min(violations.len())).contains(&told), "{told}");
            }
        }

        #[test]
        fn a_short_message_is_told_as_it_is(message in ".{0,80}") {
            let status = status(&Error::Aborted(message.clone()));
            prop_assert_eq!(status.message(), message);
        }
    }

    #[test]
    fn a_long_message_is_told_up_to_the_limit() {
        for (message, head) in
            [("x".repeat(5000), 1021), ("%".repeat(5000), 340), ("é".repeat(5000), 170)]
        {
            let status = status(&Error::Aborted(message));
            assert!(status.message().ends_with("..."));
            assert_eq!(status.message().chars().count() - 3, head);
        }
        let exact = "x".repeat(1024);
        assert_eq!(status(&Error::Aborted(exact.clone())).message(), exact);
    }
}
