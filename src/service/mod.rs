//! The rpcs of `billing.v1.ReportService`.
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
//! | `call` | what all six have in common: the first message, the reasons to end, the end |
//! | `sweep` | the thread that looks after calls that wait |
//! | `echo`, `poller` | the threads of gRPC |
//! | `decoders` | what a client's bytes become: for tests and fuzzing |

mod bulk_create;
pub mod call;
mod codec;
#[doc(hidden)]
pub mod decoders;
pub mod echo;
mod export;
pub mod limits;
pub mod methods;
pub mod poller;
mod reconcile;
mod status;
pub mod sweep;
mod token;
pub mod unary;
mod validate;
mod watch;
mod wire;

use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

use grpcio::ServiceBuilder;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::workers::Queue;
use call::{Seldom, Stopping};
use limits::Limits;
use sweep::Sweep;
use unary::UnderWay;

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
    /// The thread that moves uploads to disk; the queue has room for every upload that is admitted.
    pub spool: Queue,
    pub echoes: echo::Echoes,
    pub poller: poller::Poller,
    pub sweep: Sweep,
    /// Calls that are open, those without a message too.
    pub calls_open: AtomicUsize,
    pub stopping: Stopping,
    /// For the log of calls without a message.
    pub seldom: Seldom,
}

/// The service, to be registered with a gRPC server.
pub fn service(shared: &Arc<Shared>) -> grpcio::Service {
    let handler = |shared: &Arc<Shared>| Arc::clone(shared);
    let summary = handler(shared);
    let list = handler(shared);
    let rows = handler(shared);
    let batches = handler(shared);
    let bulk = handler(shared);
    let bulk_batches = handler(shared);
    let events = handler(shared);
    let event_batches = handler(shared);
    // On the wire these are the kinds that the proto file says. Served as streams they hold no slot of
    // gRPC before their first message, and those with a sink for many answers tell of a cancel.
    ServiceBuilder::new()
        .add_client_streaming_handler(
            &codec::parsed(&methods::GET_SUMMARY),
            move |ctx, requests, sink| unary::get_summary(&summary, ctx, requests, sink),
        )
        .add_client_streaming_handler(
            &codec::encoded(&methods::LIST_INVOICES),
            move |ctx, requests, sink| unary::list_invoices(&list, ctx, requests, sink),
        )
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::EXPORT_INVOICES),
            move |ctx, requests, sink| {
                export::export(&rows, ctx, requests, sink, export::Shape::Invoices)
            },
        )
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::EXPORT_INVOICE_BATCHES),
            move |ctx, requests, sink| {
                export::export(&batches, ctx, requests, sink, export::Shape::Batches)
            },
        )
        .add_duplex_streaming_handler(
            &codec::parsed(&methods::BULK_CREATE),
            move |ctx, requests, sink| bulk_create::bulk_create(&bulk, ctx, requests, sink),
        )
        .add_duplex_streaming_handler(
            &codec::parsed(&methods::RECONCILE),
            move |ctx, events_in, sink| reconcile::reconcile(&events, ctx, events_in, sink),
        )
        .add_duplex_streaming_handler(
            &codec::parsed(&methods::BULK_CREATE_BATCHES),
            move |ctx, requests, sink| bulk_create::bulk_create(&bulk_batches, ctx, requests, sink),
        )
        .add_duplex_streaming_handler(
            &codec::parsed(&methods::RECONCILE_BATCHES),
            move |ctx, events_in, sink| reconcile::reconcile(&event_batches, ctx, events_in, sink),
        )
        .build()
}
