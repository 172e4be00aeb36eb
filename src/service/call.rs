//! What all six rpcs have in common: the wait for the first message, the reasons to end, and the end.
//!
//! Every rpc is served by a handler of a stream, also where there is one message, because gRPC then has
//! the next call taken at once: a handler of a unary call keeps its slot until its message has come, and
//! a few calls whose message never comes would lock everyone out. A call that waits for its first message
//! is a place on a list and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::poll_fn;
use futures::task::noop_waker_ref;
use futures::{Sink, SinkExt, Stream, StreamExt};
use grpcio::{Deadline, DuplexSink, RequestStream, RpcContext, WriteFlags};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::peer::Peer;
use crate::service::codec::Request;
use crate::service::status::status;
use crate::service::sweep::Place;
use crate::service::Shared;
use crate::stop::{Reason, Stop};

/// The messages of a call as they come.
pub type Requests<M> = RequestStream<Request<M>>;

/// How long a stop of the server bears with a query, and with a client that neither sends nor takes.
pub const STOP_GRACE: Duration = Duration::from_millis(250);
/// How long it waits then for a message that such a client has not taken.
const MESSAGE_GRACE: Duration = Duration::from_millis(100);
/// How long it waits for the end of a call to be on its way. Longer only because a host may be busy.
const END_GRACE: Duration = Duration::from_secs(1);

/// What a stop of the server tells, in the order of the fields. Each has the reason of those after it.
pub struct Stopping {
    /// No calls come any more, and who waits for a client that does nothing ends.
    pub waits: Stop,
    /// [`STOP_GRACE`] later: queries end.
    pub queries: Stop,
    /// After `drain_timeout_ms`: every call ends.
    pub calls: Stop,
}

impl Default for Stopping {
    fn default() -> Stopping {
        let calls = Stop::default();
        let queries = calls.child();
        Stopping { waits: queries.child(), queries, calls }
    }
}

/// One call.
pub struct Call {
    pub shared: Arc<Shared>,
    /// Its name at gRPC.
    peer: String,
    deadline: Deadline,
}

impl Call {
    pub fn new(shared: &Arc<Shared>, ctx: &RpcContext<'_>) -> Call {
        shared.calls_open.fetch_add(1, Ordering::Relaxed);
        Call { shared: Arc::clone(shared), peer: ctx.peer(), deadline: ctx.deadline() }
    }

    pub fn peer(&self) -> Peer {
        Peer::new(&self.peer)
    }

    /// Why the call must end: the reasons of `parent`, and the client's deadline. gRPC looks at none of
    /// its own: it would reset the stream at the moment at which the client's timer rings, and some
    /// clients make INTERNAL of the one that they see first.
    pub fn stop(&self, parent: &Stop) -> Stop {
        let deadline = self.deadline;
        parent.when(move || deadline.exceeded(), Reason::Deadline)
    }

    /// The first message; `None` when the client has ended its side without one.
    pub async fn first<M>(&self, requests: &mut Requests<M>) -> Result<Option<Request<M>>> {
        self.first_at(&mut self.shared.sweep.place(), requests).await
    }

    async fn first_at<M>(
        &self,
        place: &mut Place<'_>,
        requests: &mut Requests<M>,
    ) -> Result<Option<Request<M>>> {
        let Shared { config, stopping, .. } = &*self.shared;
        let (limit, _) = first_message_limit(config);
        let limit = || if stopping.waits.is_stopped() { Duration::ZERO } else { limit };
        match place.within(requests.next(), limit).await {
            // An error is a call that is over.
            Some(first) => first.transpose().map_err(|_| Error::Cancelled),
            None => Err(self.without_message()),
        }
    }

    /// [`Call::first`] where it is the only one. (A further one is not read.)
    pub async fn only<M>(
        &self,
        place: &mut Place<'_>,
        requests: &mut Requests<M>,
        what: &str,
    ) -> Result<Request<M>> {
        let missing = || Error::invalid(what, "the call ended without its message");
        self.first_at(place, requests).await?.ok_or_else(missing)
    }

    fn without_message(&self) -> Error {
        if let Some(reason) = self.shared.stopping.waits.reason() {
            return reason.into();
        }
        let missing = &self.shared.metrics.calls_without_message;
        missing.add(1);
        let (limit, name) = first_message_limit(&self.shared.config);
        let why = format!("{name}: no message came in {} ms", limit.as_millis());
        if self.shared.seldom.is_time() {
            log::warn!("a call of {} was ended: {why}; {} so far", self.peer, missing.get());
        }
        Error::DeadlineExceeded(why)
    }

    /// Counts a call that ended, and logs why it failed.
    pub fn count<T>(&self, result: &Result<T>) {
        let metrics = &self.shared.metrics;
        let Err(error) = result else { return metrics.calls_ok.add(1) };
        metrics.calls_failed.add(1);
        // What is over is over for a reason of ours, if there is one.
        let reason = (*error == Error::Cancelled)
            .then(|| self.stop(&self.shared.stopping.calls).reason())
            .flatten();
        let error = reason.map_or_else(|| error.clone(), Error::from);
        log::debug!("a call of {} failed: {error}", self.peer);
    }

    /// Ends a call of a stream of answers: OK, or with the status of the error. A message that waits for
    /// the client is let out first: gRPC loses it when a status overtakes it, and the status may name it
    /// as the last one.
    pub async fn finish<M, T>(
        &self,
        mut sink: DuplexSink<T>,
        mut requests: Requests<M>,
        result: &Result<()>,
    ) {
        let place = &mut self.shared.sweep.place();
        // An error in any of these is a call that is over already.
        match result {
            Ok(()) => self.leave(place, async { drop(sink.close().await) }, &mut requests).await,
            // A sink that has told of the end of its call panics when it is polled again.
            Err(Error::Cancelled) => {}
            Err(error) => {
                let ready = poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx));
                let ready = place.within(ready, || self.patience(MESSAGE_GRACE)).await;
                if matches!(ready, Some(Ok(()))) {
                    let failed = sink.fail(status(error));
                    self.leave(place, async { drop(failed.await) }, &mut requests).await;
                }
            }
        }
        // Only now: dropping the requests of an open call cancels it.
        drop(requests);
    }

    /// Waits for the end of a call to be on its way. What is left then is cancelled.
    pub async fn leave<M>(
        &self,
        place: &mut Place<'_>,
        end: impl Future<Output = ()>,
        requests: &mut Requests<M>,
    ) {
        let mut end = std::pin::pin!(end);
        let end = poll_fn(|cx| {
            // Requests that were read to their end cancel nothing when they are dropped. Woken for it,
            // because news of the end of the call that comes first would hide it: one more poll is a
            // tenth of the work of a cancel.
            let _ = Pin::new(&mut *requests).poll_next(cx);
            end.as_mut().poll(cx)
        });
        place.within(end, || self.patience(END_GRACE)).await;
    }

    /// How long the end of a call may be behind messages that the client has not taken. It may come back
    /// for them, and find why it was ended; but not for ever, nor long after its own deadline, nor, but
    /// for `stopping`, when the server is to stop.
    fn patience(&self, stopping: Duration) -> Duration {
        let limit = Duration::from_millis(self.shared.config.stall_timeout_ms).saturating_mul(10);
        if self.shared.stopping.waits.is_stopped() {
            limit.min(stopping)
        } else if self.deadline.exceeded() {
            limit.min(END_GRACE)
        } else {
            limit
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.calls_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The limit on the time of the first message, and its name.
fn first_message_limit(config: &Config) -> (Duration, &'static str) {
    let limits = [
        (config.first_message_timeout_ms, "first_message_timeout_ms"),
        (config.idle_timeout_ms, "idle_timeout_ms"),
    ];
    let (limit, name) = if limits[0].0 <= limits[1].0 { limits[0] } else { limits[1] };
    (Duration::from_millis(limit), name)
}

/// Whether the call is over: a look, by which nobody is woken.
pub fn is_over<M>(requests: &mut Requests<M>) -> bool {
    let look = Pin::new(requests).poll_next(&mut Context::from_waker(noop_waker_ref()));
    matches!(look, Poll::Ready(Some(Err(_))))
}

/// Sends a message when there is room for it; [`Error::Cancelled`] when the call is over.
pub async fn send<T>(sink: &mut DuplexSink<T>, message: T, flags: WriteFlags) -> Result<()> {
    let mut message = Some((message, flags));
    let send = poll_fn(|cx| {
        let mut sink = Pin::new(&mut *sink);
        futures::ready!(sink.as_mut().poll_ready(cx))?;
        // OK because the future is done after this.
        Poll::Ready(sink.start_send(message.take().expect("sent once")))
    });
    send.await.map_err(|_| Error::Cancelled)
}

/// Says now and then that it is time: for what could otherwise fill the log.
pub struct Seldom {
    start: Instant,
    /// In milliseconds after `start`.
    next: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Seldom {
        Seldom { start: Instant::now(), next: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// Once a second at the most.
    pub fn is_time(&self) -> bool {
        let now = self.start.elapsed().as_millis() as u64;
        let next = |next| (now >= next).then_some(now + 1000);
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}
