//! The streams that are open, as who looks on sees them: what each waits for, and how full its window is.
//!
//! A stream says what it does by plain stores into its own [`Live`]; whoever looks on pays for the rest.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::calls::call::Call;
use crate::calls::spent::Spent;
use crate::config::Config;
use crate::method::Method;

/// A wait for a client is told of from then on: one that takes and sends is waited for too, in between.
const WAIT: Duration = Duration::from_millis(100);

/// One stream.
pub struct Live {
    method: Method,
    peer: String,
    identity: Option<Arc<str>>,
    start: Instant,
    /// Its rows, and what its call has waited for.
    pub spent: Arc<Spent>,
    /// Messages of rows, those sent by an export and those received by the others.
    pub messages: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// What waits in the stream's window.
    pub queued: AtomicUsize,
    window: Window,
    /// Since when the client sends nothing.
    pub idle: Arc<Since>,
    /// Since when the client takes nothing.
    pub stall: Arc<Since>,
    /// Since when the scan of an export has no thread and no connection.
    pub parked: Since,
    /// Since when the writer has rows of the stream.
    pub writer: Since,
}

/// What a stream keeps for who is slower, itself or its client, at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub max: usize,
    pub unit: &'static str,
}

impl Window {
    fn of(method: Method, config: &Config) -> Window {
        let (max, unit) = match method {
            Method::BulkCreate | Method::BulkCreateBatches => (config.max_upload_bytes, "bytes"),
            Method::Reconcile | Method::ReconcileBatches => (config.reconcile_queue_bytes, "bytes"),
            _ => (config.export_queue_chunks, "chunks"),
        };
        Window { max, unit }
    }
}

const NEVER: u64 = u64::MAX;

/// Since when something lasts, if it does.
pub struct Since {
    start: Instant,
    /// Milliseconds after `start`, or [`NEVER`].
    ms: AtomicU64,
}

impl Default for Since {
    fn default() -> Since {
        Since { start: Instant::now(), ms: AtomicU64::new(NEVER) }
    }
}

impl From<Instant> for Since {
    /// One that begins at `start` at the earliest.
    fn from(start: Instant) -> Since {
        Since { start, ms: AtomicU64::new(NEVER) }
    }
}

impl Since {
    /// It begins, or begins anew.
    pub fn begin(&self) {
        self.begin_at(Instant::now());
    }

    pub fn begin_at(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.start).as_millis() as u64;
        self.ms.store(ms, Ordering::Relaxed);
    }

    /// Whether it lasts.
    pub fn is_on(&self) -> bool {
        self.ms.load(Ordering::Relaxed) != NEVER
    }

    pub fn end(&self) {
        self.ms.store(NEVER, Ordering::Relaxed);
    }

    /// For how long it lasts.
    pub fn lasts(&self) -> Option<Duration> {
        match self.ms.load(Ordering::Relaxed) {
            NEVER => None,
            since => Some(self.start.elapsed().saturating_sub(Duration::from_millis(since))),
        }
    }
}

/// What a stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Rows move, or wait for a thread.
    Running,
    /// The scan of an export waits for room, without a thread and a connection.
    Parked,
    /// The client sends nothing, or takes nothing.
    WaitingForClient,
    /// What came is with the writer.
    WaitingForWriter,
}

impl State {
    pub const ALL: [State; 4] =
        [State::Running, State::Parked, State::WaitingForClient, State::WaitingForWriter];

    pub fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Parked => "parked",
            State::WaitingForClient => "waiting_for_client",
            State::WaitingForWriter => "waiting_for_writer",
        }
    }
}

impl Live {
    pub fn new(call: &Call) -> Arc<Live> {
        Arc::new(Live {
            method: call.method,
            peer: call.caller.address.clone(),
            identity: call.caller.identity.clone(),
            start: call.start,
            spent: Arc::clone(&call.spent),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            window: Window::of(call.method, &call.core.config),
            idle: Arc::new(Since::from(call.start)),
            stall: Arc::new(Since::from(call.start)),
            parked: Since::from(call.start),
            writer: Since::from(call.start),
        })
    }

    /// Counts messages of rows.
    pub fn count(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Says what waits in the window now.
    pub fn fill(&self, queued: usize) {
        self.queued.store(queued, Ordering::Relaxed);
    }

    /// What it does, and for how long; of running, since its start.
    pub fn state(&self) -> (State, Duration) {
        let long = |since: &Since| since.lasts().filter(|lasts| *lasts >= WAIT);
        let parked = || Some((State::Parked, self.parked.lasts()?));
        let stalled = || Some((State::WaitingForClient, long(&self.stall)?));
        let writing = || Some((State::WaitingForWriter, self.writer.lasts()?));
        let idle = || Some((State::WaitingForClient, long(&self.idle)?));
        parked()
            .or_else(stalled)
            .or_else(writing)
            .or_else(idle)
            .unwrap_or_else(|| (State::Running, self.start.elapsed()))
    }

    pub fn method(&self) -> Method {
        self.method
    }

    /// That of its caller, as gRPC has it.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn window(&self) -> Window {
        self.window
    }
}

/// All streams that are open.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Slab<Arc<Live>>>>);

impl Streams {
    /// Shows the stream until what it returns is dropped.
    pub fn show(&self, live: &Arc<Live>) -> Shown {
        let place = self.lock().insert(Arc::clone(live));
        Shown { streams: self.clone(), place }
    }

    /// Those that are open now.
    pub fn all(&self) -> Vec<Arc<Live>> {
        self.lock().iter().map(|(_, live)| Arc::clone(live)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Live>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The place of a stream among those that are open.
pub struct Shown {
    streams: Streams,
    place: usize,
}

impl Drop for Shown {
    fn drop(&mut self) {
        // Dropped after the lock.
        let _live = self.streams.lock().try_remove(self.place);
    }
}
