//! What all calls have in common: who calls, the reasons to end, and the count.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::calls::request_id::RequestId;
use crate::calls::spent::Spent;
use crate::calls::status::code;
use crate::calls::{line, Core};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::method::Method;
use crate::metrics::Limit;
use crate::peer::Peer;
use crate::status::Code;
use crate::stop::{Reason, Stop};

/// How long a stop of the server bears with a query, and with a client that neither sends nor takes.
pub const STOP_GRACE: Duration = Duration::from_millis(250);

/// What a stop of the server tells, in the order of the fields. Each has the reason of those after it.
pub struct Stopping {
    /// A stop was asked for: who chooses servers by their health is to choose another one from now on.
    pub is_draining: AtomicBool,
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
        let is_draining = AtomicBool::new(false);
        Stopping { is_draining, waits: queries.child(), queries, calls }
    }
}

/// Who makes a call.
pub struct Caller {
    /// That of its peer, as [`Peer::new`] takes it.
    pub address: String,
    /// Who it has proved to be.
    pub identity: Option<Arc<str>>,
    /// The name of its call; none in process.
    pub request_id: Option<RequestId>,
}

/// One call.
pub struct Call {
    pub core: Arc<Core>,
    pub method: Method,
    pub caller: Caller,
    pub start: Instant,
    pub spent: Arc<Spent>,
    is_late: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Call {
    /// `is_late` tells whether the deadline of its client has passed.
    pub fn new(
        core: &Arc<Core>,
        method: Method,
        caller: Caller,
        is_late: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Call {
        let (core, start) = (Arc::clone(core), Instant::now());
        let spent = Arc::new(Spent::new(start));
        Call { core, method, caller, start, spent, is_late: Arc::new(is_late) }
    }

    /// Whose part of the limits it has: that of the caller as it is known, and else of its host.
    pub fn peer(&self) -> Peer {
        let Caller { address, identity, .. } = &self.caller;
        identity.as_ref().map_or_else(|| Peer::new(address), |who| Peer::known(who, address))
    }

    /// Whether the client's deadline has passed.
    pub fn is_late(&self) -> bool {
        (self.is_late)()
    }

    /// Why the call must end: the reasons of `parent`, and the client's deadline. gRPC looks at none of
    /// its own: it would reset the stream at the moment at which the client's timer rings, and some
    /// clients make INTERNAL of the one that they see first.
    pub fn stop(&self, parent: &Stop) -> Stop {
        let is_late = Arc::clone(&self.is_late);
        parent.when(move || is_late(), Reason::Deadline)
    }

    /// How long the first message may take from now on.
    pub fn first_message_limit(&self) -> Duration {
        match self.core.stopping.waits.is_stopped() {
            true => Duration::ZERO,
            false => first_message_limit(&self.core.config).0,
        }
    }

    /// Why a call ends whose first message took longer.
    pub fn without_message(&self) -> Error {
        if let Some(reason) = self.core.stopping.waits.reason() {
            return reason.into();
        }
        let missing = &self.core.metrics.calls_without_message;
        missing.add(1);
        let (limit, name) = first_message_limit(&self.core.config);
        let why = format!("{name}: no message came in {} ms", limit.as_millis());
        if self.core.seldom.is_time() {
            log::warn!(
                "a call of {} was ended: {why}; {} so far",
                self.caller.address,
                missing.get()
            );
        }
        Error::DeadlineExceeded(why)
    }

    /// Counts and logs a call that ended.
    pub fn count<T>(&self, result: &Result<T>) {
        let metrics = &self.core.metrics;
        let why = result.as_ref().err().and_then(|error| self.why(error));
        let error = why.as_ref().or(result.as_ref().err());
        let code = match (result, error) {
            (Err(error), Some(why)) => {
                metrics.calls_failed.add(1);
                if let Some(limit) = Limit::of(error) {
                    metrics.limit_reached.of(limit).add(1);
                }
                code(why)
            }
            _ => {
                metrics.calls_ok.add(1);
                Code::Ok
            }
        };
        let took = self.start.elapsed();
        let durations = &metrics.rpc_server_call_duration_seconds;
        durations.of((self.method, code)).record(took.as_nanos() as u64);
        line::log(self, error, code, took);
    }

    /// What is over is over for a reason of ours, if there is one.
    fn why(&self, error: &Error) -> Option<Error> {
        let stop = matches!(error, Error::Cancelled).then(|| self.stop(&self.core.stopping.calls));
        stop?.reason().map(Error::from)
    }

    /// Counts messages that came over gRPC.
    pub fn received(&self, bytes: usize) {
        let metrics = &self.core.metrics;
        metrics.received_messages.of(self.method).add(1);
        metrics.received_bytes.of(self.method).add(bytes as u64);
        self.spent.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts messages that were handed to gRPC.
    pub fn sent(&self, messages: usize, bytes: usize) {
        let metrics = &self.core.metrics;
        metrics.sent_messages.of(self.method).add(messages as u64);
        metrics.sent_bytes.of(self.method).add(bytes as u64);
        self.spent.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A call that a stop of the server waits for, until it is dropped.
pub struct Open(Arc<Core>);

impl Open {
    pub fn new(core: &Arc<Core>) -> Open {
        core.calls_open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(core))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.calls_open.fetch_sub(1, Ordering::Relaxed);
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

/// Says now and then that it is time: for what could otherwise fill the log.
pub struct Seldom {
    start: Instant,
    /// In milliseconds after `start`.
    next: AtomicU64,
    /// Times a second, which may all be at once.
    times: u64,
}

/// Once a second at the most.
impl Default for Seldom {
    fn default() -> Seldom {
        Seldom::in_bursts(1)
    }
}

impl Seldom {
    /// So many `times` a second at the most.
    pub fn in_bursts(times: u64) -> Seldom {
        Seldom { start: Instant::now(), next: AtomicU64::new(0), times }
    }

    pub fn is_time(&self) -> bool {
        let now = self.start.elapsed().as_millis() as u64;
        let pause = 1000 / self.times;
        // What was not used of the second before is there to be used at once.
        let is_time = |next| now + 1000 >= next + pause;
        let next = |next: u64| is_time(next).then_some(next.max(now) + pause);
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}
