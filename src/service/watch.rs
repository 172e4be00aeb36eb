//! The limits on the time of a stream: a client that sends nothing, one that takes nothing, and the
//! longest life.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::poll_fn;
use futures::task::{waker_ref, ArcWake};
use futures_timer::Delay;

use crate::config::Config;
use crate::error::{Error, Result};

/// The times of one stream.
pub struct Watch {
    start: Instant,
    /// Since when the stream waits for its client to send; see [`Wait`].
    pub idle: Wait,
    /// Since when the stream waits for its client to take.
    pub stall: Wait,
    idle_timeout: Duration,
    stall_timeout: Duration,
    max_age: Duration,
}

impl Watch {
    pub fn new(config: &Config) -> Watch {
        let start = Instant::now();
        Watch {
            start,
            idle: Wait { start, since: AtomicU64::new(NOT_WAITING) },
            stall: Wait { start, since: AtomicU64::new(NOT_WAITING) },
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
            stall_timeout: Duration::from_millis(config.stall_timeout_ms),
            max_age: Duration::from_millis(config.max_stream_age_ms),
        }
    }

    /// The result of `work`, or DEADLINE_EXCEEDED when a limit passes before it.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (mut work, mut expired) = (pin!(work), pin!(self.expired()));
        let mut alarm: Option<Arc<Alarm>> = None;
        poll_fn(|cx| {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let alarm = match &mut alarm {
                Some(alarm) if alarm.task.will_wake(cx.waker()) => alarm,
                other => other.insert(Arc::new(Alarm::new(cx.waker().clone()))),
            };
            // Not for every message: the look takes a hundredth of the time of a row.
            if !alarm.rang.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            alarm.rang.store(false, Ordering::Relaxed);
            expired.as_mut().poll(&mut Context::from_waker(&waker_ref(alarm))).map(Err)
        })
        .await
    }

    /// Waits for the first limit to pass.
    async fn expired(&self) -> Error {
        loop {
            let waits = [
                (self.idle.left(self.idle_timeout), "idle_timeout_ms: the client sent nothing"),
                (self.stall.left(self.stall_timeout), "stall_timeout_ms: the client took nothing"),
                (
                    self.max_age.saturating_sub(self.start.elapsed()),
                    "max_stream_age_ms: the stream is too old",
                ),
            ];
            // OK because the array is not empty.
            let (left, what) = waits.into_iter().min().expect("three waits");
            if left.is_zero() {
                return Error::DeadlineExceeded(what.to_owned());
            }
            Delay::new(left).await;
        }
    }
}

/// Wakes a task, and tells it that it was this that woke it.
struct Alarm {
    task: Waker,
    rang: AtomicBool,
}

impl Alarm {
    /// As if it had rung, so that it is set.
    fn new(task: Waker) -> Alarm {
        Alarm { task, rang: AtomicBool::new(true) }
    }
}

impl ArcWake for Alarm {
    fn wake_by_ref(alarm: &Arc<Alarm>) {
        alarm.rang.store(true, Ordering::Release);
        alarm.task.wake_by_ref();
    }
}

const NOT_WAITING: u64 = u64::MAX;

/// Since when something is waited for. (An atomic only so that the future of a stream is `Send`.)
pub struct Wait {
    start: Instant,
    /// Milliseconds after `start`, or [`NOT_WAITING`].
    since: AtomicU64,
}

impl Wait {
    /// Awaits `work`, which waits for the client.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        self.begin();
        let result = work.await;
        self.since.store(NOT_WAITING, Ordering::Relaxed);
        result
    }

    /// The client did something: the wait begins anew.
    pub fn begin(&self) {
        self.since.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// What is left of `timeout`; all of it while nothing is waited for.
    fn left(&self, timeout: Duration) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            NOT_WAITING => timeout,
            since => (Duration::from_millis(since) + timeout).saturating_sub(self.start.elapsed()),
        }
    }
}
