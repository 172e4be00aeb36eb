//! What all calls have in common on gRPC: the wait for the first message, and the end.
//!
//! Every rpc is served by a handler of a stream, also where there is one message, because gRPC then has
//! the next call taken at once: a handler of a unary call keeps its slot until its message has come, and
//! a few calls whose message never comes would lock everyone out. A call that waits for its first message
//! is a place on a list and nothing else.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::poll_fn;
use futures::task::noop_waker_ref;
use futures::{Sink, SinkExt, Stream, StreamExt};
use grpcio::{DuplexSink, Metadata, MetadataBuilder, RequestStream, RpcContext, WriteFlags};

use crate::calls;
use crate::calls::call::{Caller, Open};
use crate::calls::request_id::RequestId;
use crate::calls::status::status;
use crate::calls::sweep::Place;
use crate::error::{Error, Result};
use crate::grpc::auth;
use crate::grpc::codec::{Encoded, Request};
use crate::grpc::identity::certificate_name;
use crate::grpc::status::encoded;
use crate::grpc::Shared;
use crate::method::Method;

/// The messages of a call as they come.
pub type Requests<M> = RequestStream<Request<M>>;

/// Metadata with the name of a call, of requests and of answers.
const REQUEST_ID: &str = "x-request-id";

/// How long a stop of the server waits for a message that a client has not taken which does nothing.
const MESSAGE_GRACE: Duration = Duration::from_millis(100);
/// How long it waits for the end of a call to be on its way. Longer only because a host may be busy.
const END_GRACE: Duration = Duration::from_secs(1);

/// One call of a client.
pub struct Call {
    pub shared: Arc<Shared>,
    call: calls::call::Call,
    _open: Open,
}

impl Deref for Call {
    type Target = calls::call::Call;

    fn deref(&self) -> &calls::call::Call {
        &self.call
    }
}

impl Call {
    pub fn new(shared: &Arc<Shared>, ctx: &RpcContext<'_>, method: Method) -> Call {
        let deadline = ctx.deadline();
        let is_late = move || deadline.exceeded();
        let identity = match &shared.gate {
            Some(_) => auth::caller(),
            None => certificate_name(shared, ctx),
        };
        let request_id = Some(request_id(ctx).unwrap_or_else(|| shared.core.request_ids.make()));
        let caller = Caller { address: ctx.peer(), identity, request_id };
        let call = calls::call::Call::new(&shared.core, method, caller, is_late);
        Call { shared: Arc::clone(shared), call, _open: Open::new(&shared.core) }
    }

    /// What the answer begins with: the name of the call, and `more`. grpcio sends it with the first message, and where a
    /// stream ends without one not at all.
    pub fn headers(&self, more: Option<(&str, &str)>) -> Metadata {
        let mut headers = MetadataBuilder::with_capacity(2);
        if let Some((name, value)) = more {
            // OK because both are plain text.
            headers.add_str(name, value).expect("a header");
        }
        if let Some(id) = &self.caller.request_id {
            // OK to fail: a name that is one word is a value of metadata.
            let _ = headers.add_str(REQUEST_ID, &id.text());
        }
        headers.build()
    }

    /// The first message; `None` when the client has ended its side without one.
    pub async fn first<M>(&self, requests: &mut Requests<M>) -> Result<Option<Request<M>>> {
        self.first_at(&mut self.core.sweep.place(), requests).await
    }

    async fn first_at<M>(
        &self,
        place: &mut Place<'_>,
        requests: &mut Requests<M>,
    ) -> Result<Option<Request<M>>> {
        let first = place.within(requests.next(), || self.first_message_limit()).await;
        self.spent.client.end();
        match first {
            // An error is a call that is over.
            Some(first) => {
                let first = first.transpose().map_err(|_| Error::Cancelled)?;
                first.iter().for_each(|message| self.received(message.bytes()));
                Ok(first)
            }
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

    /// Ends a call of a stream of answers: OK, or with the status of the error. A message that waits for
    /// the client is let out first: gRPC loses it when a status overtakes it, and the status may name it
    /// as the last one.
    pub async fn finish<M>(
        &self,
        mut sink: DuplexSink<Encoded>,
        mut requests: Requests<M>,
        result: &Result<()>,
    ) {
        let place = &mut self.core.sweep.place();
        // An error in any of these is a call that is over already.
        match result {
            Ok(()) => self.leave(place, async { drop(sink.close().await) }, &mut requests).await,
            // A sink that has told of the end of its call panics when it is polled again.
            Err(Error::Cancelled) => {}
            Err(error) => {
                let ready = poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx));
                let ready = place.within(ready, || self.patience(MESSAGE_GRACE)).await;
                if matches!(ready, Some(Ok(()))) {
                    let failed = sink.fail(encoded(&status(error)));
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
        let limit = Duration::from_millis(self.core.config.stall_timeout_ms).saturating_mul(10);
        if self.core.stopping.waits.is_stopped() {
            limit.min(stopping)
        } else if self.is_late() {
            limit.min(END_GRACE)
        } else {
            limit
        }
    }
}

/// Whether the client sent a header that has one value. Another value is refused: who misspells it must not go
/// without what it asks for.
pub fn is_asked_for(ctx: &RpcContext<'_>, (name, value): (&str, &str)) -> Result<bool> {
    let mut words = ctx.request_headers().iter().filter(|(header, _)| *header == name).peekable();
    let is_said = words.peek().is_some();
    match words.all(|(_, word)| word == value.as_bytes()) {
        true => Ok(is_said),
        false => Err(Error::invalid(name, format!("has the one value {value:?}, or is left out"))),
    }
}

/// What the client calls its call, where it does.
fn request_id(ctx: &RpcContext<'_>) -> Option<RequestId> {
    let mut headers = ctx.request_headers().iter().filter(|(name, _)| *name == REQUEST_ID);
    headers.find_map(|(_, value)| RequestId::given(value))
}

/// Whether the call is over: a look, by which nobody is woken.
pub fn is_over<M>(requests: &mut Requests<M>) -> bool {
    let look = Pin::new(requests).poll_next(&mut Context::from_waker(noop_waker_ref()));
    matches!(look, Poll::Ready(Some(Err(_))))
}

/// Sends a message when there is room for it; [`Error::Cancelled`] when the call is over.
pub async fn send(
    call: &Call,
    sink: &mut DuplexSink<Encoded>,
    message: Encoded,
    flags: WriteFlags,
) -> Result<()> {
    let bytes = message.bytes();
    let mut message = Some((message, flags));
    let send = poll_fn(|cx| {
        let mut sink = Pin::new(&mut *sink);
        futures::ready!(sink.as_mut().poll_ready(cx))?;
        // OK because the future is done after this.
        Poll::Ready(sink.start_send(message.take().expect("sent once")))
    });
    send.await.map_err(|_| Error::Cancelled)?;
    call.sent(1, bytes);
    Ok(())
}
