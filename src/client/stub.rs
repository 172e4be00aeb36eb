//! The stub of the service, as code generators of other languages call it: a connection, and a method for each
//! rpc with the types of grpcio.

use std::ffi::CStr;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use grpcio::{
    CallOption, Channel, ChannelBuilder, ChannelCredentialsBuilder, ClientCStreamReceiver,
    ClientCStreamSender, ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver,
    EnvBuilder, Environment, Result,
};

use super::ConnectOptions;
use crate::grpc::methods::{
    BULK_CREATE, BULK_CREATE_BATCHES, EXPORT_EVENTS, EXPORT_INVOICES, EXPORT_INVOICE_BATCHES,
    GET_INVOICE, GET_SUMMARY, LIST_INVOICES, RECONCILE, RECONCILE_BATCHES,
};
use crate::proto::report::{
    BulkResult, CreateInvoiceBatch, CreateInvoiceRequest, EventBatch, ExportEventsRequest,
    ExportRequest, GetInvoiceRequest, GetInvoiceResponse, Invoice, InvoiceBatch,
    ListInvoicesRequest, ListInvoicesResponse, ReconcileAck, ReconcileAckBatch, ReconcileEvent,
    ReconcileEventBatch, Summary, SummaryRequest,
};

/// A connection to a server. Unary calls block; streams are futures' `Stream`s and `Sink`s, to be
/// driven by any executor (`futures::executor::block_on` will do).
///
/// It connects at the first call, and again after the connection was lost; straight to the server, whatever
/// proxy the environment names. Keep it for as long as its
/// streams: they run on its thread. (grpcio drops a message that arrives together with an error: to
/// resume an export, count on the last `sequence` received, not on the cursor in the status.)
#[derive(Clone)]
pub struct Stub {
    pub(super) inner: grpcio::Client,
}

impl Stub {
    /// A client of the server at `addr` (HOST:PORT), with a thread of its own.
    pub fn new(addr: &str) -> Stub {
        Stub::with_env(environment(), addr)
    }

    /// A client on the threads of `env`, for a program with many.
    pub fn with_env(env: Arc<Environment>, addr: &str) -> Stub {
        Stub::with_channel(Stub::channel(env).connect(addr))
    }

    /// As [`Stub::new`], with the options of a connection. (A token is for each call to bring.)
    pub fn with_options(addr: &str, options: &ConnectOptions) -> Stub {
        let ConnectOptions { tls_ca, tls_cert, tls_key, tls_server_name, through_proxy, .. } =
            options;
        // The C core would apply a proxy to loopback too, so by default none is looked at.
        let channel = Stub::channel(environment())
            .raw_cfg_int(HTTP_PROXY.to_owned(), i32::from(*through_proxy));
        let channel = match tls_server_name {
            Some(name) => channel.override_ssl_target(name.as_str()),
            None => channel,
        };
        let Some(ca) = tls_ca else { return Stub::with_channel(channel.connect(addr)) };
        let credentials = ChannelCredentialsBuilder::new().root_cert(ca.clone());
        let credentials = match (tls_cert, tls_key) {
            (Some(cert), Some(key)) => credentials.cert(cert.clone(), key.clone()),
            _ => credentials,
        };
        Stub::with_channel(channel.set_credentials(credentials.build()).connect(addr))
    }

    /// The settings of a connection.
    fn channel(env: Arc<Environment>) -> ChannelBuilder {
        ChannelBuilder::new(env)
            .raw_cfg_int(HTTP_PROXY.to_owned(), 0)
            .max_reconnect_backoff(Duration::from_secs(2))
            .initial_reconnect_backoff(Duration::from_millis(100))
            // Finds a server that went away without a word.
            .keepalive_time(Duration::from_secs(30))
            .keepalive_timeout(Duration::from_secs(10))
            // Clients of one address would otherwise share a connection.
            .use_local_subchannel_pool(true)
            .max_receive_message_len(-1)
    }

    /// A client on a channel that the caller has built.
    pub fn with_channel(channel: Channel) -> Stub {
        Stub { inner: grpcio::Client::new(channel) }
    }

    /// Runs `task` on the thread of the connection. A stream that is read or fed there costs no hand-over of
    /// each message to another thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.spawn(task);
    }

    /// The rpc GetSummary.
    pub fn get_summary(&self, request: &SummaryRequest, options: CallOption) -> Result<Summary> {
        self.inner.unary_call(&GET_SUMMARY, request, options)
    }

    /// The rpc ListInvoices.
    pub fn list_invoices(
        &self,
        request: &ListInvoicesRequest,
        options: CallOption,
    ) -> Result<ListInvoicesResponse> {
        self.inner.unary_call(&LIST_INVOICES, request, options)
    }

    /// The rpc GetInvoice.
    pub fn get_invoice(
        &self,
        request: &GetInvoiceRequest,
        options: CallOption,
    ) -> Result<GetInvoiceResponse> {
        self.inner.unary_call(&GET_INVOICE, request, options)
    }

    /// The rpc ExportInvoices.
    pub fn export_invoices(
        &self,
        request: &ExportRequest,
        options: CallOption,
    ) -> Result<ClientSStreamReceiver<Invoice>> {
        self.inner.server_streaming(&EXPORT_INVOICES, request, options)
    }

    /// The rpc ExportInvoiceBatches.
    pub fn export_invoice_batches(
        &self,
        request: &ExportRequest,
        options: CallOption,
    ) -> Result<ClientSStreamReceiver<InvoiceBatch>> {
        self.inner.server_streaming(&EXPORT_INVOICE_BATCHES, request, options)
    }

    /// The rpc ExportEvents.
    pub fn export_events(
        &self,
        request: &ExportEventsRequest,
        options: CallOption,
    ) -> Result<ClientSStreamReceiver<EventBatch>> {
        self.inner.server_streaming(&EXPORT_EVENTS, request, options)
    }

    /// The rpc BulkCreate.
    pub fn bulk_create(
        &self,
        options: CallOption,
    ) -> Result<(ClientCStreamSender<CreateInvoiceRequest>, ClientCStreamReceiver<BulkResult>)>
    {
        self.inner.client_streaming(&BULK_CREATE, options)
    }

    /// The rpc BulkCreateBatches.
    pub fn bulk_create_batches(
        &self,
        options: CallOption,
    ) -> Result<(ClientCStreamSender<CreateInvoiceBatch>, ClientCStreamReceiver<BulkResult>)> {
        self.inner.client_streaming(&BULK_CREATE_BATCHES, options)
    }

    /// The rpc Reconcile.
    pub fn reconcile(
        &self,
        options: CallOption,
    ) -> Result<(ClientDuplexSender<ReconcileEvent>, ClientDuplexReceiver<ReconcileAck>)> {
        self.inner.duplex_streaming(&RECONCILE, options)
    }

    /// The rpc ReconcileBatches.
    pub fn reconcile_batches(
        &self,
        options: CallOption,
    ) -> Result<(ClientDuplexSender<ReconcileEventBatch>, ClientDuplexReceiver<ReconcileAckBatch>)>
    {
        self.inner.duplex_streaming(&RECONCILE_BATCHES, options)
    }
}

/// Whether gRPC looks at the proxies of the environment.
const HTTP_PROXY: &CStr = c"grpc.enable_http_proxy";

/// One thread.
fn environment() -> Arc<Environment> {
    Arc::new(EnvBuilder::new().cq_count(1).name_prefix("billstream-client").build())
}
