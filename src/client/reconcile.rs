//! Events in, acknowledgements out, both at once and across lost connections.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{ready, Context, Poll};

use futures::StreamExt;

use super::batch::Batch;
use super::window::Window;
use super::{cancelled, grpc, local, wait, Client, Code, Error, Result, Retry, Transport};
use crate::bridge::{self, Receiver, SendTimeoutError, Sender, TrySendError};
use crate::calls::call::Open;
use crate::proto::report::{ReconcileAck, ReconcileEvent};
use crate::stop::Stop;

/// Events that may wait for the half that sends them.
const MAX_QUEUED: usize = 4096;

/// A stream of events (payments, refunds and voids) and their acknowledgements, in two halves that may be split between threads.
///
/// The stream moves while its acknowledgements are asked for: the half [`Acks`] does the work of both. Up to 32,768
/// events are under way without an acknowledgement, and 4,096 more wait; then [`Events::send`] blocks until some are
/// taken, so that a program with one thread must take as it sends.
///
/// After a lost connection the events that have no acknowledgement are sent again, as
/// [`Client::with_retries`] says: the server applies none twice, and those that it had applied come with `duplicate`.
///
/// ```no_run
/// use billstream::client::{Client, Error};
/// use billstream::proto::report::ReconcileEvent;
///
/// fn pay(client: &Client, payments: Vec<ReconcileEvent>) -> Result<(), Error> {
///     let (events, acks) = client.reconcile().split();
///     let sender = std::thread::spawn(move || payments.into_iter().try_for_each(|p| events.send(p)));
///     for acks in acks {
///         for ack in acks? {
///             println!("{} {:?}", ack.event_id, ack.outcome);
///         }
///     }
///     // Its end was that of the stream.
///     sender.join().expect("it does not panic")
/// }
/// ```
pub struct Reconcile {
    /// The half that sends.
    pub events: Events,
    /// The half that takes acknowledgements, and moves the stream.
    pub acks: Acks,
}

impl Reconcile {
    pub(super) fn new(client: &Client) -> Reconcile {
        let (queue, queued) = bridge::bounded(MAX_QUEUED);
        let failure = Arc::new(OnceLock::new());
        let events = Events { queue, stop: client.stop.clone(), failure: Arc::clone(&failure) };
        let acks = Acks {
            client: client.clone(),
            queued: Some(queued),
            window: Window::default(),
            call: None,
            retry: client.retry(),
            failure,
        };
        Reconcile { events, acks }
    }

    /// The halves, each for a thread of its own.
    pub fn split(self) -> (Events, Acks) {
        (self.events, self.acks)
    }
}

/// The half that sends. The stream ends when it is dropped, after the acknowledgements of all that was sent.
pub struct Events {
    queue: Sender<ReconcileEvent>,
    stop: Stop,
    failure: Arc<OnceLock<Error>>,
}

impl Events {
    /// Sends an event. Blocks while too many have no acknowledgement.
    ///
    /// # Errors
    ///
    /// What the other half failed with; CANCELLED where that was dropped, or the client was stopped.
    pub fn send(&self, event: ReconcileEvent) -> Result<()> {
        // Looking at the clock takes longer than this does.
        let mut event = match self.queue.try_send(event) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(self.failure()),
            Err(TrySendError::Full(event)) => event,
        };
        while !self.stop.is_stopped() {
            event = match self.queue.send_timeout(event, bridge::TICK) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Disconnected(_)) => return Err(self.failure()),
                Err(SendTimeoutError::Timeout(event)) => event,
            };
        }
        Err(cancelled())
    }

    /// Says that there are no more events, as dropping it does.
    pub fn finish(self) {}

    fn failure(&self) -> Error {
        let dropped = || Error::new(Code::Cancelled, "nobody takes the acknowledgements any more");
        self.failure.get().cloned().unwrap_or_else(dropped)
    }
}

/// The half that takes acknowledgements: those of one commit or more at a time, one for each event, in the order of the
/// events, each after its event is on disk.
///
/// An event that cannot be applied is no error: its outcome says why. After an error, and after the last
/// acknowledgement, there is nothing more. When this is dropped before, the call is cancelled: the events without
/// an acknowledgement may be applied or not.
pub struct Acks {
    client: Client,
    /// The events that are to come; `None` when the stream is over.
    queued: Option<Receiver<ReconcileEvent>>,
    window: Window,
    call: Option<Call>,
    retry: Retry,
    failure: Arc<OnceLock<Error>>,
}

/// The call that is open, and how far its sending side is.
struct Call {
    transport: CallOf,
    sending: Sending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// All was sent, and the server is not told yet.
    Closing,
    /// The server knows, or the call is over: how it ended the acknowledgements tell.
    Over,
}

pub(super) enum CallOf {
    Grpc(Box<grpc::Reconcile>),
    Local(Box<local::Reconcile>),
}

impl CallOf {
    pub(super) fn of(client: &Client) -> Result<CallOf> {
        Ok(match &client.transport {
            Transport::Grpc(connection) => CallOf::Grpc(Box::new(connection.reconcile()?)),
            Transport::Local(local) => CallOf::Local(Box::new(local.reconcile()?)),
        })
    }

    pub(super) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            CallOf::Grpc(call) => call.poll_ready(context),
            CallOf::Local(call) => call.poll_ready(context),
        }
    }

    /// Sends events of the window, and says what comes of it; `None` where all were sent. An error is one of
    /// this client.
    fn send(&mut self, window: &mut Window) -> Result<Option<Sending>> {
        Ok(match self {
            CallOf::Grpc(call) => window.next()?.map(|batch| match call.send(batch) {
                Ok(()) => Sending::Open,
                Err(_) => Sending::Over,
            }),
            CallOf::Local(call) => window.next_events().map(|events| {
                call.send(events.cloned(), false);
                Sending::Open
            }),
        })
    }

    /// Sends events of which nothing is to be booked, after [`CallOf::poll_ready`] was ready. An error is one of
    /// this client.
    pub(super) fn validate(&mut self, events: &[&ReconcileEvent]) -> Result<()> {
        match self {
            CallOf::Grpc(call) => {
                let mut batch = Batch::default();
                events.iter().try_for_each(|event| batch.push(*event))?;
                // Where it fails the call is over, and the acknowledgements tell how.
                let _ = call.send(batch.take_validate_only());
            }
            CallOf::Local(call) => call.send(events.iter().copied().cloned(), true),
        }
        Ok(())
    }

    /// To be held while a thread waits for the call.
    pub(super) fn open(&self) -> Option<Open> {
        match self {
            CallOf::Grpc(_) => None,
            CallOf::Local(call) => Some(call.open()),
        }
    }

    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            CallOf::Grpc(call) => call.poll_close(context),
            CallOf::Local(call) => call.poll_close(context),
        }
    }

    pub(super) fn poll_acks(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Vec<ReconcileAck>>>> {
        match self {
            CallOf::Grpc(call) => call.poll_acks(context),
            CallOf::Local(call) => call.poll_acks(context),
        }
    }
}

impl Call {
    /// Sends what is there; ready when all is sent. An error is one of this client.
    fn poll_send(
        &mut self,
        window: &mut Window,
        queued: &mut Receiver<ReconcileEvent>,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        while self.sending == Sending::Open {
            if ready!(self.transport.poll_ready(context)).is_err() {
                self.sending = Sending::Over;
                break;
            }
            let is_open = window.take(queued, context);
            self.sending = match self.transport.send(window)? {
                Some(sending) => sending,
                None if is_open => return Poll::Pending,
                None => Sending::Closing,
            };
        }
        if self.sending == Sending::Closing {
            let _ = ready!(self.transport.poll_close(context));
            self.sending = Sending::Over;
        }
        Poll::Ready(Ok(()))
    }
}

impl Acks {
    /// The next acknowledgements, maybe none; `None` at the end.
    fn step(&mut self) -> Result<Option<Vec<ReconcileAck>>> {
        if self.call.is_none() && !self.open()? {
            return Ok(None);
        }
        let stop = self.client.stop.clone();
        let _open = self.call.as_ref().and_then(|call| call.transport.open());
        match wait(&stop, poll_fn(|context| self.poll(context)))? {
            Some(acks) => {
                let acks = acks?;
                self.window.acked(&acks)?;
                Ok(Some(acks))
            }
            None => {
                self.call = None;
                match self.window.unacked.len() {
                    0 => Ok(Some(Vec::new())),
                    missing => Err(Error::new(
                        Code::Unavailable,
                        format!("the server ended the stream {missing} acknowledgements early"),
                    )),
                }
            }
        }
    }

    /// Begins a call. False when there is nothing left to send.
    fn open(&mut self) -> Result<bool> {
        // No call is open while there is nothing to send: the server would end it as idle.
        if self.window.unacked.is_empty() {
            let Some(queued) = &mut self.queued else { return Ok(false) };
            let Some(event) = wait(&self.client.stop, queued.next())? else { return Ok(false) };
            self.window.unacked.push_back(event);
        }
        self.window.sent = 0;
        let transport = CallOf::of(&self.client)?;
        self.call = Some(Call { transport, sending: Sending::Open });
        Ok(true)
    }

    /// Moves both sides of the call.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<ReconcileAck>>>> {
        let (Some(call), Some(queued)) = (&mut self.call, &mut self.queued) else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(Err(error)) = call.poll_send(&mut self.window, queued, context) {
            return Poll::Ready(Some(Err(error)));
        }
        call.transport.poll_acks(context)
    }

    /// Whether the stream goes on after `error`.
    fn survives(&mut self, error: Error) -> Result<()> {
        self.call = None;
        let is_fault =
            error.code == Code::Internal || self.client.stop.is_stopped() || self.client.is_gone();
        // Nothing is outstanding: the next call waits for the next event.
        if self.window.unacked.is_empty() && !is_fault {
            return Ok(());
        }
        self.retry.wait(error)
    }
}

impl Iterator for Acks {
    type Item = Result<Vec<ReconcileAck>>;

    fn next(&mut self) -> Option<Result<Vec<ReconcileAck>>> {
        while self.queued.is_some() {
            match self.step() {
                Ok(Some(acks)) if acks.is_empty() => {}
                Ok(Some(acks)) => {
                    self.retry.progressed();
                    return Some(Ok(acks));
                }
                Ok(None) => self.queued = None,
                Err(error) => {
                    if let Err(error) = self.survives(error) {
                        // Told before the other half can see that this one is over.
                        let _ = self.failure.set(error.clone());
                        self.queued = None;
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }
}
