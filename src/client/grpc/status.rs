//! What gRPC says of a failed call, in our words.

use std::sync::Arc;

use grpcio::RpcStatus;
use protobuf::{Message, MessageFull};

use crate::client::{Code, Error};
use crate::error::Violation;
use crate::proto::error_details::{BadRequest, RetryInfo, Status};

/// The server that the calls of a connection go to.
#[derive(Clone)]
pub struct Addr(pub Arc<str>);

impl Addr {
    /// The status of a call that failed with `error`.
    pub fn status(&self, error: grpcio::Error) -> Error {
        use grpcio::Error::*;
        match error {
            RpcFailure(status) | RpcFinished(Some(status)) => self.with_details(&status),
            RemoteStopped | RpcFinished(None) => {
                Error::new(Code::Unavailable, "the server ended the call")
            }
            other => Error::new(Code::Internal, format!("in this client: {other}")),
        }
    }

    fn with_details(&self, status: &RpcStatus) -> Error {
        let code = Code::from_number(status.code().into());
        let mut message = status.message().to_owned();
        // gRPC has no code for it.
        let nobody = ["failed to connect to all addresses", "DNS resolution failed"];
        if code == Code::Unavailable && nobody.iter().any(|start| message.starts_with(start)) {
            message = format!("no server answers at {} ({message})", self.0);
        }
        let bad_request = detail::<BadRequest>(status).unwrap_or_default();
        let violations = bad_request.field_violations.into_iter();
        let violations = violations.map(|v| Violation::new(v.field, v.description)).collect();
        let retry_delay = detail::<RetryInfo>(status).and_then(|info| {
            let delay = info.retry_delay.into_option()?;
            std::time::Duration::try_from(delay).ok()
        });
        Error { code, message, violations, retry_delay }
    }
}

/// The detail of type `M` in a status. Details that cannot be read are as good as none.
fn detail<M: MessageFull>(status: &RpcStatus) -> Option<M> {
    let details = Status::parse_from_bytes(status.details()).ok()?.details;
    details.iter().find_map(|any| any.unpack::<M>().ok().flatten())
}
