//! The limits on the time of a stream: a client that sends nothing, one that takes nothing, and the
//! longest life.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::calls::call::{Call, STOP_GRACE};
use crate::calls::sweep::{Look, Sweep};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// The times of one stream.
pub struct Watch {
    sweep: Sweep,
    /// Why the stream must end, whatever it does.
    pub stop: Stop,
    /// Told when the server is to stop; then nobody waits long for a client.
    waits: Stop,
    /// Since when the stream waits for its client to send; see [`Wait`].
    pub idle: Wait,
    /// Since when the stream waits for its client to take.
    pub stall: Wait,
    /// Since when there is the stream.
    age: Wait,
}

impl Watch {
    pub fn new(call: &Call) -> Watch {
        let (config, stopping) = (&call.core.config, &call.core.stopping);
        let start = Instant::now();
        let wait = |limit_ms, what, is_for_client| Wait {
            start,
            since: AtomicU64::new(NOT_WAITING),
            limit: Duration::from_millis(limit_ms),
            what,
            is_for_client,
        };
        let age = wait(config.max_stream_age_ms, "max_stream_age_ms: the stream is too old", false);
        age.begin();
        Watch {
            sweep: call.core.sweep.clone(),
            stop: call.stop(&stopping.calls),
            waits: stopping.waits.clone(),
            idle: wait(config.idle_timeout_ms, "idle_timeout_ms: the client sent nothing", true),
            stall: wait(config.stall_timeout_ms, "stall_timeout_ms: the client took nothing", true),
            age,
        }
    }

    /// The result of `work`, or why the stream ends before it: all limits on time, and its stop.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.guard_by(&[&self.idle, &self.stall, &self.age], work).await
    }

    /// [`Watch::guard`] for a half that takes messages.
    pub async fn guard_taking<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.guard_by(&[&self.idle, &self.age], work).await
    }

    /// [`Watch::guard`] for a half that gives messages.
    pub async fn guard_giving<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.guard_by(&[&self.stall], work).await
    }

    async fn guard_by<T>(
        &self,
        waits: &[&Wait],
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let look = || self.left(waits).map_or_else(|why| Look::Over(Err(why)), Look::In);
        self.sweep.watch(Some(&self.stop), work, look).await
    }

    /// The time to the first limit; an error when it has passed.
    fn left(&self, waits: &[&Wait]) -> Result<Duration> {
        self.stop.check()?;
        let stopping = self.waits.reason();
        let is_stopping = stopping.is_some();
        let left = |wait: &&&Wait| wait.left(is_stopping);
        // OK because no caller has an empty slice.
        let first = waits.iter().min_by_key(left).expect("a wait");
        match (first.left(is_stopping), stopping) {
            (Duration::ZERO, Some(reason)) if first.is_for_client => Err(reason.into()),
            (Duration::ZERO, _) => Err(Error::DeadlineExceeded(first.what.to_owned())),
            (left, _) => Ok(left),
        }
    }
}

const NOT_WAITING: u64 = u64::MAX;

/// Since when something is waited for, and for how long. (An atomic only so that the future of a stream is
/// `Send`.)
pub struct Wait {
    start: Instant,
    /// Milliseconds after `start`, or [`NOT_WAITING`].
    since: AtomicU64,
    limit: Duration,
    /// The limit's name, and what passed it.
    what: &'static str,
    /// Whether it is the client that is waited for.
    is_for_client: bool,
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

    /// What is left of the limit; all of it while nothing is waited for.
    fn left(&self, is_stopping: bool) -> Duration {
        let limit = match is_stopping && self.is_for_client {
            true => self.limit.min(STOP_GRACE),
            false => self.limit,
        };
        match self.since.load(Ordering::Relaxed) {
            NOT_WAITING => limit,
            since => (Duration::from_millis(since) + limit).saturating_sub(self.start.elapsed()),
        }
    }
}
