//! One call of `reconcile`: events out, acknowledgements in, both on the connection's thread.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use futures::future::{select, Either};
use futures::stream::ReadyChunks;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, ClientDuplexReceiver, ClientDuplexSender, RpcStatusCode, WriteFlags};

use billstream::bridge::Sender;
use billstream::client::Stub;
use billstream::proto::report::{
    ReconcileAck, ReconcileAckBatch, ReconcileEvent, ReconcileEventBatch,
};

use super::failure::{status, Failure, Result};
use super::feed::BATCH;
use super::reconcile::Events;
use super::values::quoted;

/// Events that may be without their acknowledgement; then no more are sent.
const MAX_UNACKED: usize = 4096;

/// The events that have no acknowledgement yet, in their order.
#[derive(Default)]
struct Window {
    unacked: VecDeque<ReconcileEvent>,
    /// How many of `unacked` were sent in the call at hand.
    sent: usize,
    /// Woken when an acknowledgement makes room.
    waker: Option<Waker>,
}

impl Window {
    /// The next batch to send; `None` where all events were sent.
    fn next(&mut self) -> Option<ReconcileEventBatch> {
        let events: Vec<_> = self.unacked.iter().skip(self.sent).take(BATCH).cloned().collect();
        self.sent += events.len();
        let batch = ReconcileEventBatch { events, ..ReconcileEventBatch::default() };
        (!batch.events.is_empty()).then_some(batch)
    }

    /// Takes the event that `ack` is for out of the window.
    fn acked(&mut self, ack: &ReconcileAck) -> Result<()> {
        let event = self.unacked.pop_front().filter(|_| self.sent > 0);
        let expected = event.as_ref().map_or("none", |event| &event.event_id);
        // An id that is too long is not said again.
        if event.is_none() || expected != ack.event_id && !ack.event_id.is_empty() {
            let (got, expected) = (quoted(&ack.event_id), quoted(expected));
            return Err(Failure::Failed(format!(
                "the server acknowledged {got}, expected {expected}"
            )));
        }
        self.sent -= 1;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }
}

/// What the calls of one command share. It moves to the connection's thread for each, and back.
pub struct Session {
    client: Stub,
    input: ReadyChunks<Events>,
    /// Why the input ended early.
    pub input_failure: Option<Failure>,
    /// Shared by the two halves of a call.
    window: Mutex<Window>,
}

impl Session {
    pub fn new(client: Stub, input: ReadyChunks<Events>) -> Session {
        Session { client, input, input_failure: None, window: Mutex::default() }
    }

    pub fn client(&self) -> Stub {
        self.client.clone()
    }

    /// Whether nothing is without its acknowledgement.
    pub fn is_acked(&self) -> bool {
        lock(&self.window).unacked.is_empty()
    }

    /// Sends and receives until the input is over and everything is acknowledged. False when there was
    /// nothing left to send.
    pub async fn call(&mut self, acks: Sender<ReconcileAck>) -> Result<bool> {
        let Session { client, input, input_failure, window } = self;
        // No call is open while there is nothing to send: the server would end it as idle.
        if lock(window).unacked.is_empty() && !take(input, input_failure, window).await {
            return Ok(false);
        }
        lock(window).sent = 0;
        let (sink, receiver) = client.reconcile_batches(CallOption::default())?;
        let send = pin!(send(sink, input, input_failure, window));
        let receive = pin!(receive(receiver, window, acks));
        match select(receive, send).await {
            Either::Left((received, _)) => received?,
            // A failed send only says that the call is over: how it ended is the receiver's to tell.
            Either::Right((_sink, receive)) => receive.await?,
        }
        match lock(window).unacked.len() {
            0 => Ok(true),
            missing => {
                let message =
                    format!("the server ended the stream {missing} acknowledgements early");
                Err(Failure::Rpc(status(RpcStatusCode::UNAVAILABLE, &message)))
            }
        }
    }
}

/// Both halves are polled by one thread, so nobody ever waits for it.
fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves the events at hand from the input to the window; waits for one. False at the end of the input.
async fn take(
    input: &mut ReadyChunks<Events>,
    input_failure: &mut Option<Failure>,
    window: &Mutex<Window>,
) -> bool {
    if input_failure.is_some() {
        return false;
    }
    let Some(chunk) = input.next().await else {
        return false;
    };
    let unacked = &mut lock(window).unacked;
    let before = unacked.len();
    for event in chunk {
        match event {
            Ok(event) => unacked.push_back(event),
            Err(failure) => *input_failure = Some(failure),
        }
    }
    unacked.len() > before
}

/// Takes acknowledgements, and hands them on to be printed.
async fn receive(
    mut receiver: ClientDuplexReceiver<ReconcileAckBatch>,
    window: &Mutex<Window>,
    acks: Sender<ReconcileAck>,
) -> Result<()> {
    while let Some(batch) = receiver.next().await {
        for ack in batch?.acks {
            lock(window).acked(&ack)?;
            if acks.send(ack).await.is_err() {
                return Err(Failure::Interrupted(String::new()));
            }
        }
    }
    Ok(())
}

/// Sends events as they come, and half-closes after the last. The sink is handed back, because
/// dropping it after a failure would cancel the call before its status is known.
async fn send(
    mut sink: ClientDuplexSender<ReconcileEventBatch>,
    input: &mut ReadyChunks<Events>,
    input_failure: &mut Option<Failure>,
    window: &Mutex<Window>,
) -> (ClientDuplexSender<ReconcileEventBatch>, grpcio::Result<()>) {
    let result = async {
        loop {
            loop {
                // The window is free again before the batch is sent.
                let Some(batch) = lock(window).next() else { break };
                sink.send((batch, WriteFlags::default())).await?;
            }
            room(window).await;
            if !take(input, input_failure, window).await {
                return sink.close().await;
            }
        }
    }
    .await;
    (sink, result)
}

/// Waits until the window has room for another batch.
async fn room(window: &Mutex<Window>) {
    poll_fn(|context| {
        let mut window = lock(window);
        if window.unacked.len() + BATCH <= MAX_UNACKED {
            return Poll::Ready(());
        }
        window.waker = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}
