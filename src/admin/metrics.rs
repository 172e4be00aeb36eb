//! `/metrics`: the counters of the server, and what is read when it is asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::admin::now;
use crate::admin::process::Process;
use crate::calls::live::State;
use crate::calls::Core;
use crate::method::Method;
use crate::metrics::{Label, Shown, Text, Values};
use crate::workers::Load;

/// All metrics, as Prometheus reads them.
pub fn text(core: &Core) -> String {
    let mut text = Text::default();
    core.metrics.show(&mut text);
    streams(core, &mut text);
    queues(core, &mut text);
    bounds(core, &mut text);
    if let Some(process) = Process::now() {
        of_process(&process, &mut text);
    }
    let (version, engine) = (env!("CARGO_PKG_VERSION"), core.store.engine());
    let labels = format!("version=\"{version}\",engine=\"{engine}\"");
    let help = "1, with the version of the server and its database engine.";
    text.show("build_info", help, &Values::Gauges(vec![(labels, 1.0)]));
    text.into_string()
}

fn streams(core: &Core, text: &mut Text) {
    let labels = |(method, state): (Method, State)| {
        format!("{},state=\"{}\"", method.labels(), state.name())
    };
    let counts = now::streams(core).into_iter();
    let counts = counts.map(|(key, count)| (labels(key), count as f64)).collect();
    let help = "Streams that are open, by method and what they do: running, parked (an export without a thread), \
        waiting_for_client, waiting_for_writer.";
    text.show("streams", help, &Values::Gauges(counts));
    let help = "Calls that are open, those without a message too.";
    text.show("calls_open", help, &Values::gauge(now::calls_open(core) as f64));
    let labelled = |value: fn(&now::Limit) -> usize| {
        let limits = now::limits(core);
        let each =
            limits.iter().map(|it| (format!("limit=\"{}\"", it.name), value(it) as f64)).collect();
        Values::Gauges(each)
    };
    let help = "Streams that are open, by the limit that admits them.";
    text.show("limit_used", help, &labelled(|limit| limit.open));
    text.show("limit_max", "That limit, from the configuration.", &labelled(|limit| limit.max));
}

fn queues(core: &Core, text: &mut Text) {
    let queues = now::queues(core);
    let labelled = |value: fn(&Load) -> usize| {
        let label = |name| format!("queue=\"{name}\"");
        let each = queues.iter().map(|(name, load)| (label(name), value(load) as f64));
        each.collect::<Vec<_>>()
    };
    let (waiting, most) = core.store.waiting_jobs();
    let with_writer = |mut values: Vec<_>, value: usize| {
        values.push(("queue=\"writer\"".to_owned(), value as f64));
        Values::Gauges(values)
    };
    let queued = with_writer(labelled(|load| load.queued), waiting);
    text.show("queue_jobs", "Jobs that wait for a thread.", &queued);
    let capacity = with_writer(labelled(|load| load.capacity), most);
    text.show("queue_jobs_max", "The most jobs that may wait.", &capacity);
    let busy = Values::Gauges(labelled(|load| load.busy));
    text.show("threads_busy", "Threads of a queue that run a job.", &busy);
    text.show("threads", "Threads of a queue.", &Values::Gauges(labelled(|load| load.threads)));
    let in_use = f64::from(core.store.connections_in_use());
    let help = "Database connections of readers that are checked out.";
    text.show("connections_in_use", help, &Values::gauge(in_use));
    let help = "Database connections of readers.";
    text.show("connections", help, &Values::gauge(now::connections(core) as f64));
}

fn bounds(core: &Core, text: &mut Text) {
    let config = &core.config;
    let limit = Values::gauge(config.wal_limit_bytes as f64);
    text.show("wal_limit_bytes", "The setting of this name.", &limit);
    let part = |name: &str, bytes: usize| (format!("part=\"{name}\""), bytes as f64);
    let parts = vec![
        part("grpc", config.grpc_memory_bytes),
        part("streams", config.streams_memory_bytes()),
    ];
    let help = "The most bytes that all peers together can make the server hold, beside the caches of the database: \
        grpc_memory_bytes, and all streams at their limits.";
    text.show("memory_bound_bytes", help, &Values::Gauges(parts));
    let ready = f64::from(u8::from(core.not_ready().is_empty()));
    text.show("ready", "1 while /readyz says so.", &Values::gauge(ready));
    let started = SystemTime::now() - core.started.elapsed();
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When the server started, in seconds since 1970.";
    text.show("start_time_seconds", help, &Values::gauge(started));
}

/// Under the names that every process has.
fn of_process(process: &Process, text: &mut Text) {
    let Process { resident_bytes, virtual_bytes, open_files, max_files, threads, cpu_seconds } =
        process;
    let mut gauge = |name, help, value: u64| text.show(name, help, &Values::gauge(value as f64));
    gauge("process_resident_memory_bytes", "Memory of the process, resident.", *resident_bytes);
    gauge("process_virtual_memory_bytes", "Memory of the process, virtual.", *virtual_bytes);
    gauge("process_open_fds", "Files and sockets that the process has open.", *open_files);
    gauge("process_max_fds", "The most that it may have open.", *max_files);
    gauge("process_threads", "Threads of the process.", *threads);
    let cpu = Values::Totals(vec![(String::new(), *cpu_seconds)]);
    text.show("process_cpu_seconds", "Processor time that the process has had.", &cpu);
}
