//! A client of the service: one connection, and a method for each rpc.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use grpcio::{
    CallOption, Channel, ChannelBuilder, ClientCStreamReceiver, ClientCStreamSender,
    ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver, EnvBuilder, Environment,
    Result,
};

use crate::proto::report::{
    BulkResult, CreateInvoiceRequest, ExportRequest, Invoice, InvoiceBatch, ListInvoicesRequest,
    ListInvoicesResponse, ReconcileAck, ReconcileEvent, Summary, SummaryRequest,
};
use crate::proto::{
    BULK_CREATE, EXPORT_INVOICES, EXPORT_INVOICE_BATCHES, GET_SUMMARY, LIST_INVOICES, RECONCILE,
};

/// A connection to a server. Unary calls block; streams are futures' `Stream`s and `Sink`s, to be
/// driven by any executor (`futures::executor::block_on` will do).
///
/// It connects at the first call, and again after the connection was lost. Keep it for as long as its
/// streams: they run on its thread. (grpcio drops a message that arrives together with an error: to
/// resume an export, count on the last `sequence` received, not on the cursor in the status.)
#[derive(Clone)]
pub struct Client {
    inner: grpcio::Client,
}

impl Client {
    /// A client of the server at `addr` (HOST:PORT), with a thread of its own.
    pub fn new(addr: &str) -> Client {
        let env = EnvBuilder::new().cq_count(1).name_prefix("billstream-client").build();
        Client::with_env(Arc::new(env), addr)
    }

    /// A client on the threads of `env`, for a program with many.
    pub fn with_env(env: Arc<Environment>, addr: &str) -> Client {
        let builder = ChannelBuilder::new(env)
            .max_reconnect_backoff(Duration::from_secs(2))
            .initial_reconnect_backoff(Duration::from_millis(100))
            // Finds a server that went away without a word.
            .keepalive_time(Duration::from_secs(30))
            .keepalive_timeout(Duration::from_secs(10))
            // Clients of one address would otherwise share a connection.
            .use_local_subchannel_pool(true)
            .max_receive_message_len(-1);
        Client::with_channel(builder.connect(addr))
    }

    /// A client on a channel that the caller has built.
    pub fn with_channel(channel: Channel) -> Client {
        Client { inner: grpcio::Client::new(channel) }
    }

    /// Runs `task` on the thread of the connection. A stream that is read there costs no hand-over of each
    /// message to another thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.spawn(task);
    }

    pub fn get_summary(&self, request: &SummaryRequest, options: CallOption) -> Result<Summary> {
        self.inner.unary_call(&GET_SUMMARY, request, options)
    }

    pub fn list_invoices(
        &self,
        request: &ListInvoicesRequest,
        options: CallOption,
    ) -> Result<ListInvoicesResponse> {
        self.inner.unary_call(&LIST_INVOICES, request, options)
    }

    pub fn export_invoices(
        &self,
        request: &ExportRequest,
        options: CallOption,
    ) -> Result<ClientSStreamReceiver<Invoice>> {
        self.inner.server_streaming(&EXPORT_INVOICES, request, options)
    }

    pub fn export_invoice_batches(
        &self,
        request: &ExportRequest,
        options: CallOption,
    ) -> Result<ClientSStreamReceiver<InvoiceBatch>> {
        self.inner.server_streaming(&EXPORT_INVOICE_BATCHES, request, options)
    }

    pub fn bulk_create(
        &self,
        options: CallOption,
    ) -> Result<(ClientCStreamSender<CreateInvoiceRequest>, ClientCStreamReceiver<BulkResult>)>
    {
        self.inner.client_streaming(&BULK_CREATE, options)
    }

    pub fn reconcile(
        &self,
        options: CallOption,
    ) -> Result<(ClientDuplexSender<ReconcileEvent>, ClientDuplexReceiver<ReconcileAck>)> {
        self.inner.duplex_streaming(&RECONCILE, options)
    }
}
