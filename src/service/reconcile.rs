//! Reconcile and ReconcileBatches: two halves that fail as one. The first reads events into a bounded
//! channel; the second takes all that are at hand, has the writer apply them in one job, and sends their
//! acknowledgements after the commit. One owner a half: two senders cannot be written.
//!
//! A batch passes the channel as its events, the last of which is marked. So what waits and what is applied at
//! once are counted in events, whatever the messages are.

use std::sync::Arc;

use futures::{try_join, StreamExt};
use grpcio::{DuplexSink, RpcContext, WriteFlags};
use protobuf::EnumOrUnknown;

use crate::bridge::{self, Receiver, Sender};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Ack, Event};
use crate::proto::report::{ReconcileAck, ReconcileAckBatch, ReconcileEvent, ReconcileEventBatch};
use crate::service::call::{send, Call, Requests};
use crate::service::codec::{parse, Request};
use crate::service::watch::Watch;
use crate::service::wire::OfRows;
use crate::service::{validate, Shared};

/// What answers a message of events.
pub trait Answer: Sized + Send + 'static {
    type Events: OfRows<Row = ReconcileEvent>;

    /// The answer to a message with these acknowledgements.
    fn of(acks: &mut Vec<ReconcileAck>) -> Self;
}

impl Answer for ReconcileAck {
    type Events = ReconcileEvent;

    fn of(acks: &mut Vec<ReconcileAck>) -> ReconcileAck {
        acks.pop().unwrap_or_default()
    }
}

impl Answer for ReconcileAckBatch {
    type Events = ReconcileEventBatch;

    fn of(acks: &mut Vec<ReconcileAck>) -> ReconcileAckBatch {
        ReconcileAckBatch { acks: std::mem::take(acks), ..Default::default() }
    }
}

/// What passes from the first half to the second.
struct Item {
    /// `None` for a message without events.
    event: Option<Event>,
    /// Whether it is the last of its message.
    is_last: bool,
}

pub fn reconcile<A: Answer>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut events: Requests<A::Events>,
    mut acks: DuplexSink<A>,
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

async fn halves<A: Answer>(
    call: &Call,
    first: Request<A::Events>,
    events: &mut Requests<A::Events>,
    acks: &mut DuplexSink<A>,
) -> Result<()> {
    let shared = &call.shared;
    let _permit = shared.limits.admit(&shared.limits.reconciles, &call.peer())?;
    let watch = Watch::new(call);
    let (queue, queued) = bridge::bounded(shared.config.reconcile_queue_events);
    let take = async {
        let taken = watch.guard_taking(take(first, events, &queue, &watch, &shared.config)).await;
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
async fn take<M: OfRows<Row = ReconcileEvent>>(
    first: Request<M>,
    events: &mut Requests<M>,
    queue: &Sender<Item>,
    watch: &Watch,
    config: &Config,
) -> Result<()> {
    let (mut next, mut items) = (Some(first), Vec::new());
    while let Some(message) = next {
        // All of a message or nothing.
        message.rows(M::NAME, config, |row| {
            let event = match M::IS_BATCH {
                true => parse(format_args!("events[{}]", items.len()), row)?,
                false => parse(M::NAME, row)?,
            };
            items.push(Item { event: Some(validate::event(event)), is_last: false });
            Ok(())
        })?;
        match items.last_mut() {
            Some(last) => last.is_last = true,
            None => items.push(Item { event: None, is_last: true }),
        }
        for item in items.drain(..) {
            // It can only fail when the second half is gone, and then this one is dropped with it.
            queue.send(item).await.map_err(|_| Error::Cancelled)?;
        }
        // An error is a call that is over.
        next = watch.idle.during(events.next()).await.transpose().map_err(|_| Error::Cancelled)?;
    }
    Ok(())
}

/// The second half.
async fn acknowledge<A: Answer>(
    shared: &Shared,
    mut queued: Receiver<Item>,
    sink: &mut DuplexSink<A>,
    watch: &Watch,
) -> Result<()> {
    let mut acks = Vec::new();
    while let Some(first) = queued.next().await {
        let (events, ends) = at_hand(first, &mut queued, shared.config.reconcile_batch_events);
        let count = events.len();
        let mut applied = match count {
            0 => Vec::new(),
            _ => shared.store.apply(events)?.await?,
        }
        .into_iter();
        // Where the messages end among the events.
        for (i, end) in ends.iter().enumerate() {
            acks.extend(applied.by_ref().take(*end).map(ack_message));
            let flags = WriteFlags::default().buffer_hint(i + 1 != ends.len());
            watch.stall.during(send(sink, A::of(&mut acks), flags)).await?;
        }
        acks.extend(applied.map(ack_message));
        shared.metrics.events_acknowledged.add(count as u64);
    }
    Ok(())
}

/// The events at hand, `max` at the most; and of each message that ends among them, how many of them it has.
fn at_hand(first: Item, queued: &mut Receiver<Item>, max: usize) -> (Vec<Event>, Vec<usize>) {
    let (mut events, mut ends, mut ended) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(Item { event, is_last }) = next {
        events.extend(event);
        if is_last {
            ends.push(events.len() - ended);
            ended = events.len();
        }
        next = (events.len() < max).then(|| queued.try_recv()).flatten();
    }
    (events, ends)
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
