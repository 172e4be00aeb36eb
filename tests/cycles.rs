//! Starts and stops in one process: what each takes it gives back. `BILLSTREAM_TEST_CYCLES=1000` for the
//! long form.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use billstream::client::{Client, Stub};
use billstream::proto::report::{ExportRequest, SummaryRequest};
use billstream::{Config, Server};
use common::*;

/// A hundredth of a MiB a cycle, and what an allocator keeps.
const MAX_GROWTH_KIB: u64 = 10;
const SLACK_KIB: u64 = 8 << 10;
/// By then what is made once for all is there: gRPC's own threads, the client's, the allocator's arenas.
const WARM_UP: usize = 20;

/// What the process has of each kind.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Threads of ours by their names. (gRPC starts and ends some of its own as it sees fit.)
    threads: BTreeMap<String, usize>,
    descriptors: usize,
}

fn held() -> Held {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        // One that ends meanwhile has no name any more.
        let Ok(name) = fs::read_to_string(task.unwrap().path().join("comm")) else { continue };
        if name.starts_with("billstream") {
            *threads.entry(name.trim().to_owned()).or_default() += 1;
        }
    }
    Held { threads, descriptors: fs::read_dir("/proc/self/fd").unwrap().count() }
}

fn rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One server, called while it lasts: right before the stop, when its threads are not at rest yet.
fn cycle(dir: &Path, i: usize) {
    let listen = vec!["127.0.0.1:0".to_owned(), format!("unix:{}/bills.sock", dir.display())];
    let config = Config { db: dir.join("bills.db"), listen, ..Config::default() };
    let server = Server::start(config).unwrap();
    let client = Stub::new(&server.addresses()[i % 2].to_string());
    assert_eq!(upload(&client, [invoice(&format!("i{i}"), 1)]).unwrap().created_count, 1);
    summary(&client);
    let stopped = server.shutdown().unwrap();
    assert!(stopped.took < DEADLINE, "{stopped}");
}

/// The four kinds in process: on a server without a port, and on the file alone.
fn cycle_in_process(dir: &Path, i: usize) {
    let config = Config { db: dir.join("bills.db"), ..Config::default() };
    let (server, client) = match i % 2 {
        0 => {
            let server = Server::builder(config).without_listeners().start().unwrap();
            let client = server.local();
            (Some(server), client)
        }
        _ => (None, Client::open_with(config).unwrap()),
    };
    let id = format!("i{i}");
    let mut upload = client.upload().unwrap();
    upload.send(&invoice(&id, 1)).unwrap();
    assert_eq!(upload.commit(&id).unwrap().created_count, 1);
    let (events, acks) = client.reconcile().split();
    events.send(event(&id, &id, 1)).unwrap();
    events.finish();
    assert_eq!(acks.map(|acks| acks.unwrap().len()).sum::<usize>(), 1);
    assert_eq!(client.summary(&SummaryRequest::default()).unwrap().last_sequence, i as i64 + 1);
    let mut export = client.export(&ExportRequest::default());
    assert!(!export.next().unwrap().unwrap().is_empty());
    // Stopped while the export is open, which is dropped after it.
    if let Some(server) = server {
        server.shutdown().unwrap();
    }
}

#[test]
fn each_start_and_stop_gives_back_what_it_took() {
    gives_back(cycle);
}

#[test]
fn each_start_and_stop_in_process_gives_back_what_it_took() {
    gives_back(cycle_in_process);
}

fn gives_back(cycle: fn(&Path, usize)) {
    let _alone = alone();
    let cycles = std::env::var("BILLSTREAM_TEST_CYCLES").map_or(60, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    (0..WARM_UP).for_each(|i| cycle(dir.path(), i));
    eventually("the threads of the servers are gone", || held().threads.is_empty());
    let (before, rss_before) = (held(), rss_kib());
    (0..cycles).for_each(|i| cycle(dir.path(), WARM_UP + i));
    eventually("what was taken is given back", || held() == before);
    let growth = rss_kib().saturating_sub(rss_before);
    println!("{cycles} cycles: {growth} KiB more, from {rss_before}");
    let allowed = MAX_GROWTH_KIB * cycles as u64 + SLACK_KIB;
    assert!(growth <= allowed, "{growth} KiB more after {cycles} cycles");
}
