//! From a [`Status`] to that of gRPC, with its details as `google.rpc` has them.

use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField, MessageFull};

use crate::error::Violation;
use crate::proto::error_details::bad_request::FieldViolation;
use crate::proto::error_details::{BadRequest, RetryInfo, Status as Details};
use crate::status::Status;

/// The status as gRPC sends it.
pub fn encoded(status: &Status) -> RpcStatus {
    let code = RpcStatusCode::from(status.code as i32);
    let details = [
        (!status.violations.is_empty()).then(|| packed(&bad_request(&status.violations))),
        status.retry_delay.map(|delay| packed(&retry_info(delay))),
    ];
    let details: Vec<Any> = details.into_iter().flatten().collect();
    if details.is_empty() {
        return RpcStatus::with_message(code, status.message.clone());
    }
    let message = status.message.clone();
    let details = Details { code: code.into(), message, details, ..Details::default() };
    RpcStatus::with_details(code, status.message.clone(), bytes(details.write_to_bytes()))
}

fn packed(detail: &impl MessageFull) -> Any {
    bytes(Any::pack(detail))
}

/// OK because these messages have no required fields, the one thing that fails to encode.
fn bytes<T>(encoded: protobuf::Result<T>) -> T {
    encoded.expect("a status encodes")
}

fn bad_request(violations: &[Violation]) -> BadRequest {
    let field_violation = |violation: &Violation| FieldViolation {
        field: violation.field.clone(),
        description: violation.description.clone(),
        ..FieldViolation::default()
    };
    let field_violations = violations.iter().map(field_violation).collect();
    BadRequest { field_violations, ..BadRequest::default() }
}

fn retry_info(delay: Duration) -> RetryInfo {
    RetryInfo { retry_delay: MessageField::some(delay.into()), ..RetryInfo::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::status::status as of;
    use crate::error::{Error, MAX_VIOLATIONS};
    use proptest::prelude::*;

    /// What gRPC counts of a status: the three headers with 32 bytes each, percent-encoded and in base64.
    fn trailer_bytes(status: &RpcStatus) -> usize {
        let wire = |byte: u8| if matches!(byte, b' '..=b'~') && byte != b'%' { 1 } else { 3 };
        let message = status.message().bytes().map(wire).sum::<usize>();
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
            1 => text().prop_map(Error::NotFound),
            1 => text().prop_map(Error::AlreadyExists),
            1 => text().prop_map(Error::Aborted),
            1 => text().prop_map(Error::Unauthenticated),
            1 => text().prop_map(Error::PermissionDenied),
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
            let status = encoded(&of(&error));
            prop_assert!(trailer_bytes(&status) <= (8 << 10) - OTHERS_BYTES, "{status:?}");
            if let Error::Invalid(violations) = &error {
                let details = Details::parse_from_bytes(status.details()).unwrap();
                prop_assert_eq!(&details.message, status.message());
                let detail = details.details[0].unpack::<BadRequest>().unwrap().unwrap();
                let told = detail.field_violations.len();
                prop_assert!((1..=MAX_VIOLATIONS.min(violations.len())).contains(&told), "{told}");
            }
        }
    }
}
