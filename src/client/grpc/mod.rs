//! The calls over gRPC. Whatever waits here does so on the thread of the caller.

mod export;
mod raw;
mod reconcile;
mod status;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use grpcio::{CallOption, Method};
use protobuf::Message;

pub use export::Batches;
pub use reconcile::Call as Reconcile;
pub use upload::Upload;

use super::{cancelled, Result, Stub};
use crate::bridge::wait_while;
use crate::grpc::methods::{GET_SUMMARY, LIST_INVOICES};
use crate::proto::report::{ListInvoicesRequest, ListInvoicesResponse, Summary, SummaryRequest};
use crate::stop::Stop;
use status::Addr;

/// gRPC would take a much longer one for one that has passed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A connection to a server.
#[derive(Clone)]
pub struct Connection {
    addr: Addr,
    client: Arc<grpcio::Client>,
}

impl Connection {
    pub fn new(addr: &str, stub: Stub) -> Connection {
        Connection { addr: Addr(addr.into()), client: Arc::new(stub.inner) }
    }

    pub fn addr(&self) -> &str {
        &self.addr.0
    }

    pub fn summary(
        &self,
        request: &SummaryRequest,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<Summary> {
        self.unary(&GET_SUMMARY, request, timeout, stop)
    }

    pub fn list(
        &self,
        request: &ListInvoicesRequest,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<ListInvoicesResponse> {
        self.unary(&LIST_INVOICES, request, timeout, stop)
    }

    fn unary<Q, P: Message + Unpin>(
        &self,
        method: &Method<Q, P>,
        request: &Q,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<P> {
        let options = CallOption::default();
        let options = match timeout {
            Some(timeout) => options.timeout(timeout.min(LONGEST)),
            None => options,
        };
        let call = self.client.unary_call_async(method, request, options);
        let mut answer = call.map_err(|error| self.addr.status(error))?;
        match wait_while(&mut answer, || !stop.is_stopped()) {
            Some(answer) => answer.map_err(|error| self.addr.status(error)),
            None => {
                // It goes on when it is only dropped.
                answer.cancel();
                Err(cancelled())
            }
        }
    }
}
