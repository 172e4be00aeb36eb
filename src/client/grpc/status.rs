//! What gRPC says of a failed call, in our words.

use std::sync::Arc;

use grpcio::RpcStatus;
use protobuf::{Message, MessageFull};

use crate::client::{Code, Error};
use crate::error::Violation;
use crate::proto::error_details::{BadRequest, RetryInfo, Status};

/// The server that the calls of a connection go to.
#[derive(Clone)]
pub struct Addr {
    pub name: Arc<str>,
    pub has_tls: bool,
}

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
            message = match self.why_not(&message) {
                Some(why) => format!("no connection to {}: {why} ({message})", self.name),
                None => format!("no server answers at {} ({message})", self.name),
            };
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

impl Addr {
    /// Why the server that is there was not spoken to, by what gRPC says of it: TLS has no code of its own.
    fn why_not(&self, message: &str) -> Option<&'static str> {
        let message = message.to_lowercase().replace('_', " ");
        let known = HANDSHAKES.iter().find(|(text, _)| message.contains(text));
        // A server of TLS 1.3 looks at the certificate of a client that takes itself to be connected.
        let is_ended = ENDED.iter().any(|text| message.contains(text));
        match (known, is_ended, self.has_tls) {
            (Some((_, why)), ..) => Some(why),
            (None, true, true) => {
                Some("it ended the connection: it may want a certificate of this client (tls_cert), or another one")
            }
            (None, true, false) => Some("it ended the connection: it may want TLS (tls_ca)"),
            (None, false, _) => None,
        }
    }
}

/// What the C core says of a handshake that failed, with OpenSSL or BoringSSL, and what that means.
const HANDSHAKES: [(&str, &str); 4] = [
    ("certificate verify failed", "its certificate is out of date, or none that tls_ca has signed"),
    ("is not in peer certificate", "its certificate has another name (see tls_server_name)"),
    ("wrong version number", "it does not speak TLS"),
    ("handshake failed", "TLS does not come about"),
];

/// What it says of a connection that the server ended before it was of use.
const ENDED: [&str; 3] = ["socket closed", "connection reset", "endpoint closing"];

/// The detail of type `M` in a status. Details that cannot be read are as good as none.
fn detail<M: MessageFull>(status: &RpcStatus) -> Option<M> {
    let details = Status::parse_from_bytes(status.details()).ok()?.details;
    details.iter().find_map(|any| any.unpack::<M>().ok().flatten())
}
