//! The one table from [`Error`] to a gRPC status.

use std::time::Duration;

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField, MessageFull};

use crate::error::{Error, Violation};
use crate::proto::error_details::bad_request::FieldViolation;
use crate::proto::error_details::{BadRequest, RetryInfo, Status};

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
        Error::Unusable(_) | Error::Internal(_) => {
            let id = uuid::Uuid::now_v7();
            log::error!("{id}: {message}");
            plain(RpcStatusCode::INTERNAL, format!("a fault of the server; its log has it as {id}"))
        }
    }
}

fn plain(code: RpcStatusCode, message: String) -> RpcStatus {
    RpcStatus::with_message(code, message)
}

fn with_detail(code: RpcStatusCode, message: String, detail: &impl MessageFull) -> RpcStatus {
    let status = Any::pack(detail).and_then(|detail| {
        let code = i32::from(code);
        let status =
            Status { code, message: message.clone(), details: vec![detail], ..Status::default() };
        status.write_to_bytes()
    });
    // OK because these messages have no required fields, the one thing that fails to encode.
    RpcStatus::with_details(code, message, status.expect("a status encodes"))
}

fn bad_request(violations: &[Violation]) -> BadRequest {
    let violation = |violation: &Violation| FieldViolation {
        field: violation.field.clone(),
        description: violation.description.clone(),
        ..FieldViolation::default()
    };
    BadRequest {
        field_violations: violations.iter().map(violation).collect(),
        ..BadRequest::default()
    }
}

fn retry_info(delay: Duration) -> RetryInfo {
    RetryInfo { retry_delay: MessageField::some(delay.into()), ..RetryInfo::default() }
}
