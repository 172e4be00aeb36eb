//! The calls over gRPC. Whatever waits here does so on the thread of the caller.

mod backup;
mod export;
mod raw;
mod reconcile;
mod status;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use grpcio::{CallOption, MetadataBuilder, Method};
use protobuf::Message;

pub use backup::Chunks;
pub use export::Batches;
pub use raw::receiving;
pub use reconcile::Call as Reconcile;
pub use upload::Upload;

use super::{cancelled, ConnectOptions, Result, Stub};
use crate::bridge::wait_while;
use crate::grpc::methods::{GET_INVOICE, GET_SUMMARY, LIST_INVOICES};
use crate::proto::report::{
    GetInvoiceRequest, GetInvoiceResponse, ListInvoicesRequest, ListInvoicesResponse, Summary,
    SummaryRequest,
};
use crate::stop::Stop;
use status::Addr;

/// gRPC would take a much longer one for one that has passed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A connection to a server.
#[derive(Clone)]
pub struct Connection {
    addr: Addr,
    client: Arc<grpcio::Client>,
    /// What says who calls: `Bearer TOKEN`.
    authorization: Option<Arc<str>>,
}

impl Connection {
    pub fn new(addr: &str, stub: Stub, options: &ConnectOptions) -> Connection {
        let authorization = options.token.as_ref().map(|token| format!("Bearer {token}").into());
        let addr = Addr { name: addr.into(), has_tls: options.tls_ca.is_some() };
        Connection { addr, client: Arc::new(stub.inner), authorization }
    }

    pub fn addr(&self) -> &str {
        &self.addr.name
    }

    /// The options of a call with `headers`, and the one that says who calls.
    fn options(&self, headers: &[(&str, &str)]) -> Result<CallOption> {
        let authorization = self.authorization.iter().map(|it| ("authorization", &**it));
        let headers: Vec<_> = headers.iter().copied().chain(authorization).collect();
        if headers.is_empty() {
            return Ok(CallOption::default());
        }
        let mut metadata = MetadataBuilder::with_capacity(headers.len());
        for (name, value) in headers {
            metadata.add_str(name, value).map_err(|error| self.addr.status(error))?;
        }
        Ok(CallOption::default().headers(metadata.build()))
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

    pub fn invoice(
        &self,
        request: &GetInvoiceRequest,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<GetInvoiceResponse> {
        self.unary(&GET_INVOICE, request, timeout, stop)
    }

    fn unary<Q, P: Message + Unpin>(
        &self,
        method: &Method<Q, P>,
        request: &Q,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<P> {
        let options = self.options(&[])?;
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
