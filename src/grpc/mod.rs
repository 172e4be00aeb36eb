//! The calls on gRPC: from its streams, sinks and metadata to `calls`, and back.
//!
//! Handlers run on the completion-queue threads of gRPC and never block there.
//!
//! | module | what it is |
//! |---|---|
//! | `unary`, `export`, `bulk_create`, `reconcile`, `backup` | the rpcs |
//! | `auth` | who makes a call |
//! | `call` | what all have in common: the first message, and the end |
//! | `codec`, `status` | messages and statuses on the wire |
//! | `identity` | who calls, by certificate |
//! | `methods` | the rpcs by name, as their clients see them |
//! | `channelz` | the connections, as the C core knows them |
//! | `echo`, `poller` | the threads of gRPC |
//! | `decoders` | what a client's bytes become: for tests and fuzzing |

pub mod auth;
mod backup;
mod bulk_create;
mod call;
pub mod channelz;
pub mod codec;
#[doc(hidden)]
pub mod decoders;
pub mod echo;
mod export;
pub mod identity;
pub mod methods;
pub mod poller;
mod reconcile;
mod status;
mod unary;

use std::sync::Arc;

use grpcio::ServiceBuilder;

use crate::calls::auth::Gate;
use crate::calls::Core;
use crate::proto::report::{ReconcileAck, ReconcileAckBatch};
use export::Shape;

/// What the handlers share.
pub struct Shared {
    pub core: Arc<Core>,
    pub echoes: echo::Echoes,
    pub poller: poller::Poller,
    /// Where calls show who makes them; without it nobody is asked.
    pub gate: Option<Arc<Gate>>,
}

/// What operators ask of a server, to be registered beside [`service`].
pub fn admin_service(shared: &Arc<Shared>) -> grpcio::Service {
    let backups = Arc::clone(shared);
    ServiceBuilder::new()
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::BACKUP),
            move |ctx, requests, sink| backup::backup(&backups, ctx, requests, sink),
        )
        .build()
}

/// The service, to be registered with a gRPC server.
///
/// On the wire the rpcs are of the kinds that the proto file says. Served as streams they hold no slot of gRPC before
/// their first message, and those with a sink for many answers tell of a cancel.
pub fn service(shared: &Arc<Shared>) -> grpcio::Service {
    let service = add_writes(add_exports(ServiceBuilder::new(), shared), shared);
    let handler = || Arc::clone(shared);
    let (summary, list, invoice) = (handler(), handler(), handler());
    service
        .add_client_streaming_handler(
            &codec::encoded(&methods::GET_SUMMARY),
            move |ctx, requests, sink| unary::get_summary(&summary, ctx, requests, sink),
        )
        .add_client_streaming_handler(
            &codec::encoded(&methods::LIST_INVOICES),
            move |ctx, requests, sink| unary::list_invoices(&list, ctx, requests, sink),
        )
        .add_client_streaming_handler(
            &codec::encoded(&methods::GET_INVOICE),
            move |ctx, requests, sink| unary::get_invoice(&invoice, ctx, requests, sink),
        )
        .build()
}

fn add_exports(service: ServiceBuilder, shared: &Arc<Shared>) -> ServiceBuilder {
    let handler = || Arc::clone(shared);
    let (rows, batches, events) = (handler(), handler(), handler());
    service
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::EXPORT_INVOICES),
            move |ctx, requests, sink| export::export(&rows, ctx, requests, sink, Shape::Invoices),
        )
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::EXPORT_INVOICE_BATCHES),
            move |ctx, requests, sink| {
                export::export(&batches, ctx, requests, sink, Shape::Batches)
            },
        )
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::EXPORT_EVENTS),
            move |ctx, requests, sink| export::export(&events, ctx, requests, sink, Shape::Events),
        )
}

fn add_writes(service: ServiceBuilder, shared: &Arc<Shared>) -> ServiceBuilder {
    let handler = || Arc::clone(shared);
    let (bulk, bulk_batches) = (handler(), handler());
    let (events, event_batches) = (handler(), handler());
    service
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::BULK_CREATE),
            move |ctx, requests, sink| bulk_create::bulk_create(&bulk, ctx, requests, sink),
        )
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::RECONCILE),
            move |ctx, events_in, sink| {
                reconcile::reconcile::<ReconcileAck>(&events, ctx, events_in, sink)
            },
        )
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::BULK_CREATE_BATCHES),
            move |ctx, requests, sink| bulk_create::bulk_create(&bulk_batches, ctx, requests, sink),
        )
        .add_duplex_streaming_handler(
            &codec::encoded(&methods::RECONCILE_BATCHES),
            move |ctx, events_in, sink| {
                reconcile::reconcile::<ReconcileAckBatch>(&event_batches, ctx, events_in, sink)
            },
        )
}
