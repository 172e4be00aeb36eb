//! A bounded channel between a thread and a future, or two of either.
//!
//! It is a crossbeam channel with a waker on each side, for one sender and one receiver. Either side
//! may block (a thread) or be polled (a future):
//!
//! | side | thread | future |
//! |---|---|---|
//! | [`Sender`] | [`Sender::send_timeout`] | [`Sender::send`], or [`Sender::poll_ready`] and [`Sender::try_send`] |
//! | [`Receiver`] | [`Receiver::recv`], [`Receiver::recv_timeout`] | `Stream::poll_next` |
//!
//! Ownership is the stop protocol. When the receiver is dropped, sends fail and [`Sender::is_closed`]
//! turns true. When the sender is dropped, the receiver gets what was sent, and then the end.
//!
//! ```
//! use billstream::bridge;
//! use futures::StreamExt;
//!
//! let (sender, receiver) = bridge::bounded(2);
//! // This thread blocks while nobody takes, and ends when the receiver is dropped.
//! std::thread::spawn(move || (1..).try_for_each(|n| bridge::wait(sender.send(n))));
//! let first: Vec<i32> = futures::executor::block_on(receiver.take(3).collect());
//! assert_eq!(first, [1, 2, 3]);
//! ```
//!
//! `examples/stream_blocking.rs` has it in a service of its own: a thread that reads a file at the speed of a
//! client of gRPC, with no queue but this.
//!
//! [`wait`] is for a thread that waits for a future, [`wait_while`] for one that may give up.
//!
//! It knows neither SQLite nor gRPC.

mod wait;

pub use wait::{wait, wait_while, TICK};

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_channel::TryRecvError;
pub use crossbeam_channel::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TrySendError,
};
use futures::future::poll_fn;
use futures::task::AtomicWaker;
use futures::Stream;

/// A channel that holds at most `capacity` values, which must be over 0.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a rendezvous channel has no room to poll for");
    let (tx, rx) = crossbeam_channel::bounded(capacity);
    let shared = Arc::new(Shared::default());
    let sender = Sender { tx, end: SenderEnd(Arc::clone(&shared)) };
    let receiver = Receiver { rx, end: ReceiverEnd(shared) };
    (sender, receiver)
}

#[derive(Default)]
struct Shared {
    /// The sender's future; woken after a value was taken and after the receiver is gone.
    room: AtomicWaker,
    /// The receiver's future; woken after a value was sent and after the sender is gone.
    values: AtomicWaker,
    /// Set when the receiver is dropped, before `room` is woken.
    closed: AtomicBool,
}

/// The sending side. There is one, so that nothing but its own sends can take the room it saw.
pub struct Sender<T> {
    // Fields are dropped in this order: the channel is disconnected before the receiver is woken.
    tx: crossbeam_channel::Sender<T>,
    end: SenderEnd,
}

struct SenderEnd(Arc<Shared>);

impl<T> Sender<T> {
    /// Sends `value` if there is room.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.tx.try_send(value)?;
        self.end.0.values.wake();
        Ok(())
    }

    /// Sends `value`, and blocks up to `timeout` for room.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.tx.send_timeout(value, timeout)?;
        self.end.0.values.wake();
        Ok(())
    }

    /// Sends `value` when there is room. Fails when the receiver is gone.
    pub async fn send(&self, mut value: T) -> Result<(), SendError<T>> {
        loop {
            // Tried first: a receiver wakes whoever has waited for room, also where there was some.
            value = match self.try_send(value) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(value)) => value,
                Err(TrySendError::Disconnected(value)) => return Err(SendError(value)),
            };
            poll_fn(|cx| self.poll_ready(cx)).await;
        }
    }

    /// Ready when the next [`Sender::try_send`] will not find the channel full; otherwise the task
    /// is woken when that is so. Ready too when the receiver is gone.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Registered before the look: a value taken in between wakes the task again.
        self.end.0.room.register(cx.waker());
        if self.is_closed() {
            // Nobody wakes it any more; and kept, it would keep a task for ever that owns this sender.
            self.end.0.room.take();
            return Poll::Ready(());
        }
        if self.tx.is_full() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Whether a value sent now would find no room.
    pub fn is_full(&self) -> bool {
        self.tx.is_full()
    }

    /// Values that wait to be taken.
    pub fn queued(&self) -> usize {
        self.tx.len()
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.end.0.closed.load(Ordering::Acquire)
    }

    /// [`Sender::is_closed`] for a place that cannot hold the sender.
    pub fn closed(&self) -> Closed {
        Closed(Arc::clone(&self.end.0))
    }
}

impl Drop for SenderEnd {
    fn drop(&mut self) {
        self.0.values.wake();
    }
}

/// Tells whether the receiver of a channel is gone.
#[derive(Clone)]
pub struct Closed(Arc<Shared>);

impl Closed {
    /// Whether it is gone.
    pub fn get(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }
}

/// The receiving side. There is one, so that every wake-up finds its value.
pub struct Receiver<T> {
    // Fields are dropped in this order, as in `Sender`.
    rx: crossbeam_channel::Receiver<T>,
    end: ReceiverEnd,
}

struct ReceiverEnd(Arc<Shared>);

/// Values are moved in and out, and never pinned.
impl<T> Unpin for Receiver<T> {}

impl<T> Receiver<T> {
    /// Blocks until there is a value; an error when the sender is gone and all was taken.
    pub fn recv(&self) -> Result<T, RecvError> {
        let value = self.rx.recv()?;
        self.end.0.room.wake();
        Ok(value)
    }

    /// As [`Receiver::recv`], and blocks up to `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let value = self.rx.recv_timeout(timeout)?;
        self.end.0.room.wake();
        Ok(value)
    }

    /// A value if one is at hand.
    pub fn try_recv(&self) -> Option<T> {
        let value = self.rx.try_recv().ok()?;
        self.end.0.room.wake();
        Some(value)
    }

    /// Whether no value is at hand.
    pub fn is_empty(&self) -> bool {
        self.rx.is_empty()
    }

    /// Values that wait to be taken.
    pub fn queued(&self) -> usize {
        self.rx.len()
    }

    fn poll_recv(&self) -> Poll<Option<T>> {
        match self.rx.try_recv() {
            Ok(value) => {
                self.end.0.room.wake();
                Poll::Ready(Some(value))
            }
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => Poll::Pending,
        }
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Poll::Ready(value) = self.poll_recv() {
            return Poll::Ready(value);
        }
        // Registered before the second look: a value sent in between is seen or wakes the task.
        self.end.0.values.register(cx.waker());
        self.poll_recv()
    }
}

impl Drop for ReceiverEnd {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.room.wake();
    }
}

#[cfg(test)]
mod tests;
