//! Reconcile: two halves that fail as one. The first reads events into a bounded channel; the
//! second takes all that are at hand, has the writer apply them in one job, and sends their
//! acknowledgements after the commit. One owner a half: two senders cannot be written.

use std::sync::Arc;

use futures::{try_join, StreamExt};
use grpcio::{DuplexSink, RequestStream, RpcContext, WriteFlags};
use protobuf::EnumOrUnknown;

use crate::bridge::{self, Receiver, Sender};
use crate::error::{Error, Result};
use crate::model::{Ack, Event};
use crate::proto::report::{ReconcileAck, ReconcileEvent};
use crate::service::codec::Request;
use crate::service::watch::Watch;
use crate::service::{finish, send, validate, Shared};
use crate::store::reconcile::apply;

type Events = RequestStream<Request<ReconcileEvent>>;
type Acks = DuplexSink<ReconcileAck>;

pub fn reconcile(shared: &Arc<Shared>, ctx: RpcContext<'_>, mut events: Events, mut acks: Acks) {
    let permit = shared.limits.admit(&shared.limits.reconciles, ctx.peer());
    let shared = Arc::clone(shared);
    ctx.spawn(async move {
        let result = match &permit {
            Ok(_) => {
                let watch = Watch::new(&shared.config);
                let (queue, queued) = bridge::bounded(shared.config.reconcile_queue_events);
                let halves = async {
                    try_join!(
                        take(&mut events, queue, &watch, shared.config.max_message_bytes),
                        acknowledge(&shared, queued, &mut acks, &watch),
                    )
                };
                watch.guard(halves).await.map(|_| ())
            }
            Err(error) => Err(error.clone()),
        };
        shared.count(&result);
        finish(acks, result, &shared.config).await;
        // Only now: dropping the events of an open call cancels it.
        drop(events);
    });
}

/// The first half. Dropping the queue tells the second that there are no more.
async fn take(
    events: &mut Events,
    queue: Sender<Event>,
    watch: &Watch,
    max_bytes: usize,
) -> Result<()> {
    while let Some(event) = watch.idle.during(events.next()).await {
        // An error is a call that is over.
        let event = event.map_err(|_| Error::Cancelled)?;
        let event = event.message("ReconcileEvent", max_bytes)?;
        // It can only fail when the second half is gone, and then this one is dropped with it.
        queue.send(validate::event(event)).await.map_err(|_| Error::Cancelled)?;
    }
    Ok(())
}

/// The second half.
async fn acknowledge(
    shared: &Shared,
    mut queued: Receiver<Event>,
    sink: &mut Acks,
    watch: &Watch,
) -> Result<()> {
    while let Some(first) = queued.next().await {
        let mut events = vec![first];
        while events.len() < shared.config.reconcile_batch_events {
            match queued.try_recv() {
                Some(event) => events.push(event),
                None => break,
            }
        }
        let applied = shared.store.writer.submit(move |job| apply(job, &events))?;
        let acks = applied
            .await
            .unwrap_or_else(|_| Err(Error::Internal("a batch of events was dropped".to_owned())))?;
        let last = acks.len() - 1;
        for (i, ack) in acks.into_iter().enumerate() {
            let flags = WriteFlags::default().buffer_hint(i != last);
            watch.stall.during(send(sink, ack_message(ack), flags)).await?;
        }
        shared.metrics.events_acknowledged.add(last as u64 + 1);
    }
    Ok(())
}

fn ack_message(ack: Ack) -> ReconcileAck {
    ReconcileAck {
        event_id: ack.event_id,
        outcome: EnumOrUnknown::from_i32(ack.outcome),
        invoice_status: EnumOrUnknown::from_i32(ack.invoice_status),
        outstanding_cents: ack.outstanding_cents,
        duplicate: ack.duplicate,
        message: ack.message,
        ..Default::default()
    }
}
