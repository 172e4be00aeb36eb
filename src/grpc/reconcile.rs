//! Reconcile and ReconcileBatches on gRPC.

use std::future::poll_fn;
use std::sync::Arc;

use futures::{try_join, StreamExt};
use grpcio::{DuplexSink, RpcContext, WriteFlags};
use protobuf::Message;

use crate::calls::reconcile::{start, Intake, Outlet};
use crate::calls::watch::Watch;
use crate::calls::wire::OfRows;
use crate::error::{Error, Result};
use crate::grpc::call::{send, Call, Requests};
use crate::grpc::codec::{Encoded, Request};
use crate::grpc::Shared;
use crate::method::Method;
use crate::proto::report::{ReconcileAck, ReconcileAckBatch, ReconcileEvent, ReconcileEventBatch};

/// What answers a message of events.
pub trait Answer: Message {
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

pub fn reconcile<A: Answer>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut events: Requests<A::Events>,
    mut acks: DuplexSink<Encoded>,
) {
    let method = if A::Events::IS_BATCH { Method::ReconcileBatches } else { Method::Reconcile };
    let call = Call::new(shared, &ctx, method);
    acks.set_headers(call.headers(None));
    ctx.spawn(async move {
        let result = match call.first(&mut events).await {
            Ok(Some(first)) => Box::pin(halves::<A>(&call, first, &mut events, &mut acks)).await,
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
    acks: &mut DuplexSink<Encoded>,
) -> Result<()> {
    let watch = Watch::new(call);
    let (intake, outlet) = start(call, &watch.live)?;
    let take = async {
        let take = take(call, first, events, intake, &watch);
        match watch.guard_taking(take).await {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            // What was taken before is acknowledged nevertheless.
            taken => Ok(taken),
        }
    };
    let give = watch.guard_giving(give::<A>(call, outlet, acks, &watch));
    let (taken, ()) = try_join!(take, give)?;
    taken
}

/// The first half. Its end tells the other that there are no more.
async fn take<M: OfRows<Row = ReconcileEvent>>(
    call: &Call,
    first: Request<M>,
    events: &mut Requests<M>,
    mut intake: Intake,
    watch: &Watch,
) -> Result<()> {
    let max_bytes = call.core.config.max_message_bytes;
    let mut next = Some(first);
    while let Some(message) = next {
        message.encoded(M::NAME, max_bytes, |bytes| intake.take::<M>(bytes))?;
        poll_fn(|context| intake.poll_hand_over(context)).await?;
        poll_fn(|context| intake.poll_tried(context)).await;
        // An error is a call that is over.
        next = watch.idle.beside(events.next()).await.transpose().map_err(|_| Error::Cancelled)?;
        next.iter().for_each(|message| call.received(message.bytes()));
    }
    Ok(())
}

/// The second half.
async fn give<A: Answer>(
    call: &Call,
    mut outlet: Outlet,
    sink: &mut DuplexSink<Encoded>,
    watch: &Watch,
) -> Result<()> {
    while poll_fn(|context| outlet.poll_apply(context)).await? {
        while let Some(acks) = outlet.answer() {
            let answer = Encoded::of(&A::of(acks))?;
            let flags = WriteFlags::default().buffer_hint(outlet.has_answer());
            watch.stall.during(send(call, sink, answer, flags)).await?;
        }
    }
    Ok(())
}
