//! The stop of a server, whole or half started.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::{select, Either};
use futures_timer::Delay;

use crate::admin::Admin;
use crate::bridge::wait;
use crate::calls::call::STOP_GRACE;
use crate::calls::start::Threads;
use crate::calls::Core;
use crate::error::{Error, Result};
use crate::grpc::Shared;
use crate::stop::{Reason, Stop};

use super::health::{Monitor, Watching};
use super::threads::{Environments, Hold};
use super::tls::Tls;
use super::watch::Watch;

/// How long cancelled calls may take to end before a stop goes on without them.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a stop did. (Calls of an embedder's own services are not counted.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Calls that were open when the stop began, and went on to end OK.
    pub drained: u64,
    /// Calls that were open then, and ended with an error: UNAVAILABLE, if it is for the stop.
    pub cancelled: u64,
    /// Those of the cancelled that were uploads: nothing of theirs was created.
    pub rolled_back: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether it is over. `false` where it was asked for on a completion-queue thread of the server, which a
    /// stop has to wait for: then it goes on on a thread of its own, tells the log how it ended, and the
    /// other fields are 0.
    pub is_over: bool,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stopped { drained, cancelled, rolled_back, took, is_over } = self;
        match is_over {
            true => {
                write!(f, "stopped after {took:.1?}: {drained} open calls went on to their end, ")?;
                write!(
                    f,
                    "{cancelled} were ended, {rolled_back} of them uploads, of which nothing "
                )?;
                f.write_str("was created")
            }
            false => f.write_str("stopping on another thread"),
        }
    }
}

/// What a stop takes apart, in its order.
pub struct Running {
    pub grpc: grpcio::Server,
    pub envs: Environments,
    pub hold: Hold,
    pub shared: Arc<Shared>,
    /// It answers until no call is open.
    pub admin: Option<Admin>,
    pub threads: Threads,
    pub watching: Watching,
    /// Whether calls may be open that are not counted.
    pub has_own_services: bool,
    /// Whether calls may have come: who waits for a start that failed waits for no lame duck.
    pub is_serving: bool,
    pub tls: Option<Tls>,
    /// Looks after the file of tokens, where there is one.
    pub tokens: Option<Watch>,
}

impl Running {
    /// On a thread that is none of gRPC's. A database that `store` does not keep yet is removed.
    pub fn stop(self) -> Result<Stopped> {
        let start = Instant::now();
        let metrics = Arc::clone(&self.shared.core.metrics);
        let Running {
            mut grpc,
            envs,
            hold,
            shared,
            admin,
            threads,
            watching,
            has_own_services,
            is_serving,
            tls,
            tokens,
        } = self;
        let monitor = &watching.monitor;
        monitor.draining();
        let config = &shared.core.config;
        let lame_duck_ms = if is_serving { config.lame_duck_ms } else { 0 };
        lame_duck(lame_duck_ms.min(config.drain_timeout_ms));
        let drain = Duration::from_millis(config.drain_timeout_ms.saturating_sub(lame_duck_ms));
        let stopped = hold.during(|| grpc.shutdown());
        let (ok, failed) = (metrics.calls_ok.get(), metrics.calls_failed.get());
        let uploads_failed = metrics.uploads_failed();
        let stopped = Some(stopped);
        let drained =
            Drain { core: &shared.core, monitor, stopped, has_own_services, drain }.run(&mut grpc);
        drop((admin, watching));
        // A backup in this process may be held by who does not read it: its thread would wait for ever.
        shared.core.stopping.calls.stop(Reason::Stopping);
        let sweeping = threads.stop();
        shared.poller.close();
        drop(grpc);
        let all_ended = envs.stop(CANCEL_TIMEOUT);
        drop((sweeping, tls, tokens));
        let report = Stopped {
            drained: metrics.calls_ok.get() - ok,
            cancelled: metrics.calls_failed.get() - failed,
            rolled_back: metrics.uploads_failed() - uploads_failed,
            took: start.elapsed(),
            is_over: true,
        };
        log::info!("{report}");
        if drained && all_ended {
            Ok(report)
        } else {
            Err(Error::Internal("calls did not end in time; the database is closed".to_owned()))
        }
    }
}

/// Lets calls still come, while who chooses servers by their health chooses others.
fn lame_duck(pause_ms: u64) {
    let pause = Duration::from_millis(pause_ms);
    if !pause.is_zero() {
        log::info!("NOT_SERVING, and serving for {pause:?} to who has not heard of it");
        thread::sleep(pause);
    }
}

/// The end of all calls.
struct Drain<'a> {
    core: &'a Core,
    monitor: &'a Monitor,
    /// `None` once gRPC has ended its calls.
    stopped: Option<grpcio::ShutdownFuture>,
    has_own_services: bool,
    /// How long calls in progress may go on.
    drain: Duration,
}

impl Drain<'_> {
    /// Ends all calls, the longer the less they are in progress; whether they have ended.
    fn run(&mut self, grpc: &mut grpcio::Server) -> bool {
        let stopping = &self.core.stopping;
        let drain = self.drain;
        self.monitor.close();
        self.tell(&stopping.waits);
        if self.has_stopped(drain.min(STOP_GRACE)) {
            return true;
        }
        self.tell(&stopping.queries);
        let start = Instant::now();
        while self.has_calls() && start.elapsed() + STOP_GRACE < drain {
            if self.has_stopped(Duration::from_millis(20)) {
                return true;
            }
        }
        let calls_open = self.calls_open();
        if calls_open > 0 {
            log::info!("ending {calls_open} calls that are open after {drain:?}");
            self.tell(&stopping.calls);
            // For their statuses to get out.
            if self.has_stopped(STOP_GRACE) {
                return true;
            }
        }
        // Also where no call is left: the connection of a client that answers no PING ends by this.
        grpc.cancel_all_calls();
        self.has_stopped(CANCEL_TIMEOUT)
    }

    /// Whether all calls end in time, those in process too.
    fn has_stopped(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        if let Some(stopped) = &mut self.stopped {
            match wait(select(stopped, Delay::new(time))) {
                Either::Left(_) => self.stopped = None,
                Either::Right(_) => return false,
            }
        }
        // Nothing tells of them: they are counted.
        while self.calls_open() > 0 && start.elapsed() < time {
            wait(Delay::new(Duration::from_millis(1)));
        }
        self.calls_open() == 0
    }

    fn calls_open(&self) -> usize {
        self.core.calls_open.load(Ordering::Relaxed)
    }

    /// Calls of other services are not counted, and so may always be open.
    fn has_calls(&self) -> bool {
        self.has_own_services || self.calls_open() > 0
    }

    fn tell(&self, stop: &Stop) {
        stop.stop(Reason::Stopping);
        self.core.sweep.hurry();
    }
}
