//! Reconcile: two halves that fail as one. The first reads events into a bounded channel; the
//! second takes all that are at hand, has the writer apply them in one job, and sends their
//! acknowledgements after the commit. One owner a half: two senders cannot be written.

use std::sync::Arc;

use futures::{try_join, StreamExt};
use grpcio::{DuplexSink, RpcContext, WriteFlags};
use protobuf::EnumOrUnknown;

use crate::bridge::{self, Receiver, Sender};
use crate::error::{Error, Result};
use crate::model::{Ack, Event};
use crate::proto::report::{ReconcileAck, ReconcileEvent};
use crate::service::call::{send, Call, Requests};
use crate::service::codec::Request;
use crate::service::watch::Watch;
use crate::service::{validate, Shared};

type Acks = DuplexSink<ReconcileAck>;

pub fn reconcile(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut events: Requests<ReconcileEvent>,
    mut acks: Acks,
) {
    let call = Call::new(shared, &ctx);
    ctx.spawn(async move {
        let result = match call.first(&mut events).await {
            Ok(Some(first)) => Box::pin(halves(&call, first, &mut events, &mut acks)).await,
            // The client has ended its side at once, or the call is over.
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        call.count(&result);
        call.finish(acks, events, &result).await;
    });
}

async fn halves(
    call: &Call,
    first: Request<ReconcileEvent>,
    events: &mut Requests<ReconcileEvent>,
    acks: &mut Acks,
) -> Result<()> {
    let shared = &call.shared;
    let _permit = shared.limits.admit(&shared.limits.reconciles, &call.peer())?;
    let watch = Watch::new(call);
    let (queue, queued) = bridge::bounded(shared.config.reconcile_queue_events);
    let take = async {
        let max_bytes = shared.config.max_message_bytes;
        let taken = watch.guard_taking(take(first, events, &queue, &watch, max_bytes)).await;
        // Tells the other half that there are no more.
        drop(queue);
        match taken {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            // What was taken before is acknowledged nevertheless.
            taken => Ok(taken),
        }
    };
    let acknowledge = watch.guard_giving(acknowledge(shared, queued, acks, &watch));
    let (taken, ()) = try_join!(take, acknowledge)?;
    taken
}

/// The first half.
async fn take(
    first: Request<ReconcileEvent>,
    events: &mut Requests<ReconcileEvent>,
    queue: &Sender<Event>,
    watch: &Watch,
    max_bytes: usize,
) -> Result<()> {
    let mut next = Some(first);
    while let Some(event) = next {
        let event = event.message("ReconcileEvent", max_bytes)?;
        // It can only fail when the second half is gone, and then this one is dropped with it.
        queue.send(validate::event(event)).await.map_err(|_| Error::Cancelled)?;
        // An error is a call that is over.
        next = watch.idle.during(events.next()).await.transpose().map_err(|_| Error::Cancelled)?;
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
        let acks = shared.store.writer.apply(events)?.await?;
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
