//! `/status.json`: what the page shows. `docs/observability.md` has its schema.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::admin::now;
use crate::admin::process::Process;
use crate::calls::live::{Live, State};
use crate::calls::Core;
use crate::method::Method;
use crate::metrics::{Histogram, Limit, Scale};
use crate::status::Code;

/// The most streams that are told of one by one.
const MAX_STREAMS: usize = 1000;

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    engine: String,
    uptime_seconds: f64,
    listen: &'a [String],
    ready: bool,
    not_ready: Vec<String>,
    calls_open: usize,
    calls: Vec<Calls>,
    rows: Rows,
    scans_parked: u64,
    commits: Commits,
    wal: Bounded<u64>,
    memory: Memory,
    limits: Vec<Bounded<usize>>,
    limit_reached: BTreeMap<&'static str, u64>,
    queues: Vec<Bounded<usize>>,
    threads: Vec<Bounded<usize>>,
    streams: Streams,
}

/// The calls of a method that have ended, and what went over gRPC for them.
#[derive(Serialize)]
struct Calls {
    method: &'static str,
    codes: BTreeMap<&'static str, u64>,
    duration_seconds: Distribution,
    received: Traffic,
    sent: Traffic,
}

#[derive(Serialize)]
struct Traffic {
    messages: u64,
    bytes: u64,
}

/// How many were recorded up to each bound, and in all.
#[derive(Serialize)]
struct Distribution {
    bounds: Vec<f64>,
    up_to: Vec<u64>,
    count: u64,
    sum: f64,
}

#[derive(Serialize)]
struct Rows {
    scanned: u64,
    exported: u64,
    created: u64,
    events: u64,
}

#[derive(Serialize)]
struct Commits {
    count: u64,
    failed: u64,
    jobs: u64,
    duration_seconds: Distribution,
}

/// How much there is of something, and the most that may be.
#[derive(Serialize)]
struct Bounded<N> {
    name: &'static str,
    used: N,
    max: N,
}

#[derive(Serialize)]
struct Memory {
    /// `None` where the system does not tell.
    resident_bytes: Option<u64>,
    grpc_bound_bytes: usize,
    streams_bound_bytes: usize,
}

#[derive(Serialize)]
struct Streams {
    total: usize,
    by_state: BTreeMap<&'static str, usize>,
    shown: Vec<Stream>,
}

#[derive(Serialize)]
struct Stream {
    method: &'static str,
    peer: String,
    identity: Option<String>,
    age_seconds: f64,
    state: &'static str,
    state_seconds: f64,
    messages: u64,
    bytes: u64,
    rows: u64,
    window_used: usize,
    window_max: usize,
    window_unit: &'static str,
}

/// The status as JSON; `listen` is where calls come in.
pub fn json(core: &Core, listen: &[String]) -> String {
    // OK because it has no map with keys that are no text.
    serde_json::to_string(&status(core, listen)).expect("a status is JSON")
}

fn status<'a>(core: &Core, listen: &'a [String]) -> Status<'a> {
    let (metrics, not_ready) = (&core.metrics, core.not_ready());
    let reached = Limit::ALL.iter();
    let reached = reached.map(|(limit, name)| (*name, metrics.limit_reached.of(*limit).get()));
    let limits = now::limits(core).map(|it| Bounded { name: it.name, used: it.open, max: it.max });
    let wal_bytes = metrics.wal_bytes.get() as u64;
    Status {
        version: env!("CARGO_PKG_VERSION"),
        engine: core.store.engine(),
        uptime_seconds: core.started.elapsed().as_secs_f64(),
        listen,
        ready: not_ready.is_empty(),
        not_ready,
        calls_open: now::calls_open(core),
        calls: Method::ALL.map(|method| calls(core, method)).into(),
        rows: Rows {
            scanned: metrics.rows_scanned.get(),
            exported: metrics.rows_exported.get(),
            created: metrics.invoices_created.get(),
            events: metrics.events_acknowledged.get(),
        },
        scans_parked: metrics.scans_parked.get(),
        commits: Commits {
            count: metrics.commits.get(),
            failed: metrics.commits_failed.get(),
            jobs: metrics.jobs_committed.get(),
            duration_seconds: distribution([&metrics.commit_duration_seconds]),
        },
        wal: Bounded { name: "wal_bytes", used: wal_bytes, max: core.config.wal_limit_bytes },
        memory: memory(core),
        limits: limits.into(),
        limit_reached: reached.collect(),
        queues: queues(core),
        threads: threads(core),
        streams: streams(core),
    }
}

fn calls(core: &Core, method: Method) -> Calls {
    let metrics = &core.metrics;
    let durations = &metrics.rpc_server_call_duration_seconds;
    let of_method = || durations.iter().filter(move |((of, _), _)| *of == method);
    let counts = of_method().map(|((_, code), histogram)| (Code::name(code), histogram.count()));
    let received = (metrics.received_messages.of(method), metrics.received_bytes.of(method));
    let sent = (metrics.sent_messages.of(method), metrics.sent_bytes.of(method));
    Calls {
        method: method.name(),
        codes: counts.filter(|(_, count)| *count > 0).collect(),
        duration_seconds: distribution(of_method().map(|(_, histogram)| histogram)),
        received: Traffic { messages: received.0.get(), bytes: received.1.get() },
        sent: Traffic { messages: sent.0.get(), bytes: sent.1.get() },
    }
}

/// That of all `histograms` together.
fn distribution<'a, S: Scale>(
    histograms: impl IntoIterator<Item = &'a Histogram<S>>,
) -> Distribution {
    let (bounds, mut sum) = (Histogram::<S>::bounds(), 0.0);
    let mut up_to = vec![0; bounds.len() + 1];
    for histogram in histograms {
        sum += histogram.sum();
        up_to.iter_mut().zip(histogram.cumulative()).for_each(|(all, (_, one))| *all += one);
    }
    // The last has no bound.
    let count = up_to.pop().unwrap_or_default();
    Distribution { bounds, up_to, count, sum }
}

fn memory(core: &Core) -> Memory {
    Memory {
        resident_bytes: Process::now().map(|process| process.resident_bytes),
        grpc_bound_bytes: core.config.grpc_memory_bytes,
        streams_bound_bytes: core.config.streams_memory_bytes(),
    }
}

fn queues(core: &Core) -> Vec<Bounded<usize>> {
    let (used, max) = core.store.waiting_jobs();
    let queues = now::queues(core).into_iter();
    let queues = queues.map(|(name, load)| Bounded { name, used: load.queued, max: load.capacity });
    queues.chain([Bounded { name: "writer", used, max }]).collect()
}

fn threads(core: &Core) -> Vec<Bounded<usize>> {
    let in_use = core.store.connections_in_use() as usize;
    let connections = Bounded { name: "connections", used: in_use, max: now::connections(core) };
    let queues = now::queues(core).into_iter();
    let threads = queues.map(|(name, load)| Bounded { name, used: load.busy, max: load.threads });
    threads.chain([connections]).collect()
}

fn streams(core: &Core) -> Streams {
    let all = core.streams.all();
    let mut by_state: BTreeMap<_, _> = State::ALL.map(|state| (state.name(), 0)).into();
    all.iter().for_each(|live| *by_state.entry(live.state().0.name()).or_default() += 1);
    let shown = all.iter().take(MAX_STREAMS).map(|live| stream(live)).collect();
    Streams { total: all.len(), by_state, shown }
}

fn stream(live: &Live) -> Stream {
    let ((state, lasts), window) = (live.state(), live.window());
    Stream {
        method: live.method().name(),
        peer: live.peer().to_owned(),
        identity: live.identity().map(str::to_owned),
        age_seconds: live.age().as_secs_f64(),
        state: state.name(),
        state_seconds: lasts.as_secs_f64(),
        messages: live.messages.load(Ordering::Relaxed),
        bytes: live.bytes.load(Ordering::Relaxed),
        rows: live.spent.rows.load(Ordering::Relaxed),
        window_used: live.queued.load(Ordering::Relaxed),
        window_max: window.max,
        window_unit: window.unit,
    }
}
