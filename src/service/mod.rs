//! The six rpcs of `billing.v1.ReportService`.
//!
//! Handlers run on the completion-queue threads of gRPC and never block there: what reads SQLite is
//! a job of a worker thread, what writes is a job of the writer, and the future of the call waits
//! for either. (The exception, with its bound, is a small read: see `unary`.)
//!
//! | module | what it is |
//! |---|---|
//! | `unary` | GetSummary and ListInvoices |
//! | `export` | ExportInvoices and ExportInvoiceBatches |
//! | `bulk_create`, `reconcile` | the rpcs that write |
//! | `validate` | from messages to the model |
//! | `status` | from errors to statuses: the one table |
//! | `codec`, `wire`, `token`, `limits`, `watch` | their tools |
//! | `echo`, `poller` | the threads of gRPC |
//! | `decoders` | what a client's bytes become: for tests and fuzzing |

mod bulk_create;
mod codec;
#[doc(hidden)]
pub mod decoders;
pub mod echo;
mod export;
pub mod limits;
pub mod poller;
mod reconcile;
mod status;
mod token;
mod unary;
mod validate;
mod watch;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{poll_fn, select};
use futures::Sink;
use futures_timer::Delay;
use grpcio::{DuplexSink, ServiceBuilder, WriteFlags};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::proto;
use crate::store::Store;
use crate::workers::Queue;
use limits::Limits;
pub use unary::UnderWay;

/// What the handlers share.
pub struct Shared {
    pub config: Config,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    /// The threads of the unary calls.
    pub unary: Queue,
    pub unary_calls: UnderWay,
    /// The threads of the exports; the queue has room for every export that is admitted.
    pub exports: Queue,
    pub echoes: echo::Echoes,
    pub poller: poller::Poller,
}

impl Shared {
    /// Counts a call that ended.
    fn count<T>(&self, result: &Result<T>) {
        match result {
            Ok(_) => self.metrics.calls_ok.add(1),
            Err(_) => self.metrics.calls_failed.add(1),
        }
    }
}

/// The service, to be registered with a gRPC server.
pub fn service(shared: &Arc<Shared>) -> grpcio::Service {
    let handler = |shared: &Arc<Shared>| Arc::clone(shared);
    let summary = handler(shared);
    let list = handler(shared);
    let rows = handler(shared);
    let batches = handler(shared);
    let bulk = handler(shared);
    let events = handler(shared);
    ServiceBuilder::new()
        .add_unary_handler(&codec::parsed(&proto::GET_SUMMARY), move |ctx, request, sink| {
            unary::get_summary(&summary, ctx, request, sink)
        })
        .add_unary_handler(&codec::encoded(&proto::LIST_INVOICES), move |ctx, request, sink| {
            unary::list_invoices(&list, ctx, request, sink)
        })
        .add_server_streaming_handler(
            &codec::encoded(&proto::EXPORT_INVOICES),
            move |ctx, request, sink| {
                export::export(&rows, ctx, request, sink, export::Shape::Invoices)
            },
        )
        .add_server_streaming_handler(
            &codec::encoded(&proto::EXPORT_INVOICE_BATCHES),
            move |ctx, request, sink| {
                export::export(&batches, ctx, request, sink, export::Shape::Batches)
            },
        )
        // On the wire a client-streaming rpc is a duplex one with a single response; served as
        // one, its sink tells of a cancel.
        .add_duplex_streaming_handler(
            &codec::parsed(&proto::BULK_CREATE),
            move |ctx, requests, sink| bulk_create::bulk_create(&bulk, ctx, requests, sink),
        )
        .add_duplex_streaming_handler(
            &codec::parsed(&proto::RECONCILE),
            move |ctx, events_in, sink| reconcile::reconcile(&events, ctx, events_in, sink),
        )
        .build()
}

/// Sends a message when there is room for it; [`Error::Cancelled`] when the call is over.
async fn send<T>(sink: &mut DuplexSink<T>, message: T, flags: WriteFlags) -> Result<()> {
    let mut message = Some((message, flags));
    let send = poll_fn(|cx| {
        let mut sink = std::pin::Pin::new(&mut *sink);
        futures::ready!(sink.as_mut().poll_ready(cx))?;
        // OK because the future is done after this.
        std::task::Poll::Ready(sink.start_send(message.take().expect("sent once")))
    });
    send.await.map_err(|_| Error::Cancelled)
}

/// Ends a call of both directions: OK, or with the status of the error.
async fn finish<T>(mut sink: DuplexSink<T>, result: Result<()>, config: &Config) {
    // An error in any of these is a call that is over already.
    let end = async {
        match result {
            Ok(()) => drop(futures::SinkExt::close(&mut sink).await),
            Err(error) => drop(sink.fail(status::status(&error)).await),
        }
    };
    select(pin!(end), Delay::new(grace(config))).await;
}

/// How long the end of a call waits for a client that takes nothing: it is behind the messages that the
/// client has not taken. Then the call is cancelled, and its place is free.
fn grace(config: &Config) -> Duration {
    Duration::from_millis(config.stall_timeout_ms) * 10
}
