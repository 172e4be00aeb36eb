//! What the calls of the services have in common: what they may take, and how they end.
//!
//! Every method is served by a handler of a stream, also where there is one message: then gRPC has the next
//! call taken at once. A handler of one message keeps one of gRPC's slots until its message has come, and a
//! few calls whose message never comes would lock everyone out.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{pin, Pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{poll_fn, select, Either};
use futures::{FutureExt, Sink, SinkExt, StreamExt};
use futures_timer::Delay;
use grpcio::{DuplexSink, RequestStream, RpcContext, RpcStatus, RpcStatusCode};
use slab::Slab;

use super::wire::Received;
use super::Limits;

/// How long the end of a call may be behind a message that its client has not taken.
const MESSAGE_GRACE: Duration = Duration::from_millis(100);
/// How long the end of a call may take to be on its way. What is left then is cancelled.
const END_GRACE: Duration = Duration::from_secs(10);

pub type Requests<M> = RequestStream<Received<M>>;

/// Why a call ends otherwise than OK.
#[derive(Debug)]
pub enum End {
    /// It is over: nobody hears of it.
    Gone,
    With(RpcStatus),
}

impl End {
    pub fn with(code: RpcStatusCode, why: impl Into<String>) -> End {
        End::With(RpcStatus::with_message(code, why.into()))
    }
}

/// The calls of a service.
#[derive(Clone)]
pub struct Calls(Arc<Shared>);

struct Shared {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// Calls that wait, for a message or for news.
    waiting: Slab<Waker>,
    /// The streams that are open, by connection.
    streams: HashMap<String, usize>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Calls {
    pub fn new(limits: Limits) -> Calls {
        Calls(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// Ends those that are open and those to come, with UNAVAILABLE.
    pub fn close(&self) {
        self.0.state().is_closed = true;
        self.wake();
    }

    /// Wakes all that wait: there is news.
    pub fn wake(&self) {
        let waiting: Vec<Waker> = self.0.state().waiting.iter().map(|(_, it)| it.clone()).collect();
        waiting.into_iter().for_each(Waker::wake);
    }

    pub fn open(&self, ctx: &RpcContext<'_>) -> Call {
        Call { calls: Arc::clone(&self.0), peer: ctx.peer(), key: None, is_stream: false }
    }
}

/// A call that is open.
pub struct Call {
    calls: Arc<Shared>,
    /// Of its connection.
    peer: String,
    /// Its place among those that wait.
    key: Option<usize>,
    /// Whether it has a place among the streams.
    is_stream: bool,
}

impl Call {
    /// Takes a place for a stream. (A call without its first message has none.)
    pub fn enter(&mut self) -> Result<(), End> {
        let limits = self.calls.limits;
        let mut state = self.calls.state();
        let all: usize = state.streams.values().sum();
        let of_peer = state.streams.get(&self.peer).copied().unwrap_or(0);
        if all >= limits.max_streams || of_peer >= limits.max_streams_per_connection {
            let why = format!("{of_peer} streams of this connection are open, and {all} of all");
            return Err(End::with(RpcStatusCode::RESOURCE_EXHAUSTED, why));
        }
        state.streams.insert(self.peer.clone(), of_peer + 1);
        self.is_stream = true;
        Ok(())
    }

    /// Whether the service is closed. The task of `cx` is woken when it is, and with each news.
    pub fn is_closed(&mut self, cx: &Context<'_>) -> bool {
        let mut state = self.calls.state();
        match self.key {
            Some(key) if state.waiting[key].will_wake(cx.waker()) => {}
            Some(key) => state.waiting[key] = cx.waker().clone(),
            None => self.key = Some(state.waiting.insert(cx.waker().clone())),
        }
        state.is_closed
    }

    /// The next message; `None` when the client has ended its side.
    pub async fn message<M>(&mut self, requests: &mut Requests<M>) -> Result<Option<M>, End> {
        let limit = self.calls.limits.message_timeout;
        let mut timer = Delay::new(limit);
        let next = poll_fn(|cx| {
            if let Poll::Ready(next) = requests.poll_next_unpin(cx) {
                return Poll::Ready(Ok(next));
            }
            if self.is_closed(cx) {
                return Poll::Ready(Err(closed()));
            }
            let late = || format!("no message came in {} ms", limit.as_millis());
            timer.poll_unpin(cx).map(|()| Err(End::with(RpcStatusCode::DEADLINE_EXCEEDED, late())))
        });
        match next.await? {
            None => Ok(None),
            Some(Ok(received)) => received.map(Some).map_err(End::With),
            Some(Err(_)) => Err(End::Gone),
        }
    }

    /// [`Call::message`] where it is the only one.
    pub async fn only<M>(&mut self, requests: &mut Requests<M>) -> Result<M, End> {
        let missing = "the call ended without its message";
        let message = self.message(requests).await?;
        message.ok_or_else(|| End::with(RpcStatusCode::INVALID_ARGUMENT, missing))
    }

    /// Waits until the client has room for another message.
    pub async fn room<T>(&mut self, sink: &mut DuplexSink<T>) -> Result<(), End> {
        let limit = self.calls.limits.message_timeout;
        let mut timer = Delay::new(limit);
        poll_fn(|cx| {
            if let Poll::Ready(ready) = Pin::new(&mut *sink).poll_ready(cx) {
                return Poll::Ready(ready.map_err(|_| End::Gone));
            }
            if self.is_closed(cx) {
                return Poll::Ready(Err(closed()));
            }
            let late = || format!("a message was not taken in {} ms", limit.as_millis());
            timer.poll_unpin(cx).map(|()| Err(End::with(RpcStatusCode::DEADLINE_EXCEEDED, late())))
        })
        .await
    }

    /// Ends a call of a stream of answers.
    pub async fn finish<M, T>(
        self,
        mut sink: DuplexSink<T>,
        mut requests: Requests<M>,
        result: Result<(), End>,
    ) {
        // An error in any of these is a call that is over already.
        match result {
            Ok(()) => leave(async { drop(sink.close().await) }, &mut requests).await,
            // Its sink panics when it is polled again.
            Err(End::Gone) => {}
            Err(End::With(status)) => {
                // gRPC loses a message that a status overtakes.
                let ready = poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx));
                if let Some(Ok(())) = within(MESSAGE_GRACE, ready).await {
                    leave(sink.fail(status).map(drop), &mut requests).await;
                }
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.calls.state();
        if let Some(key) = self.key {
            state.waiting.remove(key);
        }
        if self.is_stream {
            match state.streams.get_mut(&self.peer) {
                Some(streams) if *streams > 1 => *streams -= 1,
                _ => drop(state.streams.remove(&self.peer)),
            }
        }
    }
}

pub fn closed() -> End {
    End::with(RpcStatusCode::UNAVAILABLE, "the server is shutting down")
}

/// Waits for the end of a call to be on its way.
pub async fn leave<M>(end: impl Future<Output = ()>, requests: &mut Requests<M>) {
    let mut end = pin!(end);
    let end = poll_fn(|cx| {
        // Requests that were read to their end cancel nothing when they are dropped.
        let _ = requests.poll_next_unpin(cx);
        end.as_mut().poll(cx)
    });
    within(END_GRACE, end).await;
}

/// The result of `work`, if it comes in time.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), Delay::new(limit)).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}
