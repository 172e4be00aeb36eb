//! The limits on the time of a stream: a client that sends nothing, one that takes nothing, and the
//! longest life.

use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::calls::call::{Call, STOP_GRACE};
use crate::calls::live::{Live, Since};
use crate::calls::spent::{during, Spent};
use crate::calls::sweep::{Look, Sweep};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// The times of one stream.
pub struct Watch {
    /// What the stream shows of itself.
    pub live: Arc<Live>,
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
        let live = Live::new(call);
        let wait = |since: &Arc<Since>, limit_ms, what, is_for_client| Wait {
            since: Arc::clone(since),
            spent: Arc::clone(&call.spent),
            limit: Duration::from_millis(limit_ms),
            what,
            is_for_client,
        };
        let too_old = "max_stream_age_ms: the stream is too old";
        let age = wait(&Arc::default(), config.max_stream_age_ms, too_old, false);
        age.begin();
        let sends_nothing = "idle_timeout_ms: the client sent nothing";
        let takes_nothing = "stall_timeout_ms: the client took nothing";
        Watch {
            idle: wait(&live.idle, config.idle_timeout_ms, sends_nothing, true),
            stall: wait(&live.stall, config.stall_timeout_ms, takes_nothing, true),
            live,
            sweep: call.core.sweep.clone(),
            stop: call.stop(&stopping.calls),
            waits: stopping.waits.clone(),
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

/// Since when something is waited for, and for how long.
pub struct Wait {
    since: Arc<Since>,
    /// For the sum of the waits for the client.
    spent: Arc<Spent>,
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
        let mut work = pin!(work);
        let result = poll_fn(|cx| during(&self.spent.client, work.as_mut().poll(cx))).await;
        self.since.end();
        result
    }

    /// [`Wait::during`] beside other work, which goes on: it counts for the limit alone.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        self.begin();
        let result = work.await;
        self.since.end();
        result
    }

    /// The client did something: the wait begins anew.
    pub fn begin(&self) {
        self.since.begin();
    }

    /// What is left of the limit; all of it while nothing is waited for.
    fn left(&self, is_stopping: bool) -> Duration {
        let limit = match is_stopping && self.is_for_client {
            true => self.limit.min(STOP_GRACE),
            false => self.limit,
        };
        limit.saturating_sub(self.since.lasts().unwrap_or_default())
    }
}
