//! SIGTERM while calls of every kind are under way: the stop ends in time, its report adds up, and what was
//! acknowledged is there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, Invoice, ReconcileAck, ReconcileEvent};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{
    ChannelBuilder, ClientDuplexReceiver, ClientDuplexSender, ClientSStreamReceiver, EnvBuilder,
    RpcStatusCode, WriteFlags,
};
use rusqlite::Connection;

use crate::client::{options, Asker};
use crate::common::process::Process;
use crate::common::*;

const DRAIN: Duration = Duration::from_secs(2);
const EXPORTS: usize = 50;
const UPLOADS: usize = 20;
const RECONCILES: usize = 20;
const WATCHES: usize = 5;

/// How a call ended for its client, with the ids of what it was told is done.
struct Ended {
    is_ok: bool,
    done: Vec<String>,
}

/// The calls that are under way. Each has had an answer, or its first message taken, before the stop; half of each
/// kind do nothing more, the others go on, and end soon after they hear of the stop.
struct Load {
    /// Its connection is that of all calls.
    client: Stub,
    /// Whether the clients are to come to an end.
    is_ending: Arc<AtomicBool>,
    calls: Vec<JoinHandle<Ended>>,
    stalled: Vec<ClientSStreamReceiver<Invoice>>,
}

impl Load {
    fn start(addr: &str) -> Load {
        // With windows that do not grow, an export is open for as long as its client does not read.
        let env = Arc::new(EnvBuilder::new().cq_count(1).build());
        let channel = ChannelBuilder::new(env).http2_bdp_probe(false);
        let client = Stub::with_channel(channel.use_local_subchannel_pool(true).connect(addr));
        let is_ending = Arc::new(AtomicBool::new(false));
        let mut load = Load { client, is_ending, calls: Vec::new(), stalled: Vec::new() };
        (0..EXPORTS).for_each(|i| load.export(i.is_multiple_of(2)));
        (0..RECONCILES).for_each(|i| load.reconcile(i, i.is_multiple_of(2)));
        (0..UPLOADS).for_each(|i| load.upload(i, i.is_multiple_of(2)));
        load
    }

    fn export(&mut self, is_stalled: bool) {
        let request = ExportRequest { max_rows: 10_000, ..Default::default() };
        let mut rows = self.client.export_invoices(&request, options()).unwrap();
        block_on(rows.next()).unwrap().unwrap();
        if is_stalled {
            return self.stalled.push(rows);
        }
        let is_ending = Arc::clone(&self.is_ending);
        self.calls.push(thread::spawn(move || {
            while !is_ending.load(Ordering::SeqCst) {
                block_on(rows.next()).unwrap().unwrap();
                thread::sleep(Duration::from_millis(1));
            }
            Ended { is_ok: collect(rows).1.is_none(), done: Vec::new() }
        }));
    }

    fn reconcile(&mut self, i: usize, is_idle: bool) {
        let (mut events, mut acks) = self.client.reconcile(options()).unwrap();
        let mut done = vec![format!("e{i}-0")];
        pay(&mut events, &mut acks, &done[0]).unwrap();
        let is_ending = Arc::clone(&self.is_ending);
        self.calls.push(thread::spawn(move || {
            while !is_idle && !is_ending.load(Ordering::SeqCst) {
                let id = format!("e{i}-{}", done.len());
                match pay(&mut events, &mut acks, &id) {
                    Some(()) => done.push(id),
                    // It was ended in the middle.
                    None => return Ended { is_ok: false, done },
                }
            }
            if !is_idle {
                block_on(half_close(&mut events));
            }
            Ended { is_ok: collect(acks).1.is_none(), done }
        }));
    }

    fn upload(&mut self, i: usize, is_idle: bool) {
        let (mut rows, result) = self.client.bulk_create(options()).unwrap();
        let id = format!("u{i}-0");
        block_on(rows.send((invoice(&id, 1), WriteFlags::default()))).unwrap();
        let is_ending = Arc::clone(&self.is_ending);
        self.calls.push(thread::spawn(move || {
            let mut done = vec![id];
            while !is_idle && !is_ending.load(Ordering::SeqCst) {
                let id = format!("u{i}-{}", done.len());
                if block_on(rows.send((invoice(&id, 1), WriteFlags::default()))).is_err() {
                    break;
                }
                done.push(id);
                thread::sleep(Duration::from_millis(1));
            }
            if !is_idle {
                block_on(half_close(&mut rows));
            }
            let is_ok = block_on(result).is_ok();
            Ended { is_ok, done: if is_ok { done } else { Vec::new() } }
        }));
    }

    /// The calls that ended OK, and what was acknowledged.
    fn end(self) -> (usize, HashSet<String>) {
        let (mut ok, mut done) = (0, HashSet::new());
        for call in self.calls {
            let ended = call.join().unwrap();
            ok += usize::from(ended.is_ok);
            done.extend(ended.done);
        }
        for rows in self.stalled {
            let (_, end) = collect(rows);
            let end = status(Err::<(), _>(end.expect("it was stalled"))).code();
            let ends = [RpcStatusCode::UNAVAILABLE, RpcStatusCode::CANCELLED];
            assert!(ends.contains(&end), "{end:?}");
        }
        (ok, done)
    }
}

/// Sends an event and waits for its acknowledgement; `None` where the call is over.
fn pay(
    events: &mut ClientDuplexSender<ReconcileEvent>,
    acks: &mut ClientDuplexReceiver<ReconcileAck>,
    id: &str,
) -> Option<()> {
    let event = event(id, "inv-00000003", 1);
    block_on(events.send((event, WriteFlags::default()))).ok()?;
    let ack = block_on(acks.next())?.ok()?;
    assert_eq!(ack.event_id, id);
    Some(())
}

/// A number of the report, in front of `words`.
fn number(report: &str, words: &str) -> usize {
    let (before, _) = report.split_once(words).unwrap_or_else(|| panic!("{words:?}: {report}"));
    before.split_whitespace().next_back().unwrap().parse().unwrap()
}

fn ids(db: &Connection, column: &str, table: &str) -> HashSet<String> {
    let mut statement = db.prepare(&format!("SELECT {column} FROM {table}")).unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

#[test]
fn sigterm_under_load_ends_in_time_and_its_report_adds_up() {
    let _alone = alone();
    let stops: usize =
        std::env::var("BILLSTREAM_TEST_STOPS").map_or(3, |text| text.parse().unwrap());
    let (db, drain) = (database(100_000), DRAIN.as_millis().to_string());
    let mut times = Vec::new();
    for _ in 0..stops {
        let flags = ["--drain-timeout-ms", &drain];
        let mut server = Process::with_env(&db, &flags, &[("RUST_LOG", "info")]);
        let asker = Asker::new(&server.addr);
        let watches: Vec<_> = (0..WATCHES).map(|_| asker.watch("")).collect();
        let load = Load::start(&server.addr);
        let is_ending = Arc::clone(&load.is_ending);
        let ending = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            is_ending.store(true, Ordering::SeqCst);
        });
        let took = server.stop();
        ending.join().unwrap();
        assert!(took < DRAIN + Duration::from_secs(2), "{took:?}");
        times.push(took);
        let (ok, done) = load.end();
        drop(watches);

        let log = server.log();
        let report = log.lines().find(|line| line.contains("stopped after")).unwrap();
        let drained = number(report, "open calls went on to their end");
        let cancelled = number(report, "were ended");
        let rolled_back = number(report, "of them uploads");
        assert_eq!(drained + cancelled, EXPORTS + UPLOADS + RECONCILES, "{report}");
        assert!((UPLOADS / 2..=UPLOADS).contains(&rolled_back), "{report}");
        // (A status may be lost where its call is cancelled at once after it.)
        assert!(ok <= drained, "{ok} ended OK: {report}");
        let sqlite = Connection::open(&server.db).unwrap();
        let mut there = ids(&sqlite, "invoice_id", "invoices WHERE invoice_id LIKE 'u%'");
        there.extend(ids(&sqlite, "event_id", "reconcile_events"));
        let lost: Vec<_> = done.difference(&there).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
    times.sort();
    println!(
        "{stops} stops: {:?} at the median, {:?} at the most",
        times[stops / 2],
        times[stops - 1]
    );
}

/// With a million invoices, from the start of the process to the first answer.
#[test]
fn a_killed_server_serves_again_within_a_second() {
    let _alone = alone();
    let mut server = Process::with_copy(&database(1_000_000), &[]);
    let client = Stub::new(&server.addr);
    upload(&client, (0..1_000).map(|i| invoice(&format!("new-{i}"), 1))).unwrap();
    let start = Instant::now();
    server.kill_and_start(&[]);
    let took = start.elapsed();
    println!("serving again {took:?} after a kill -9");
    assert_eq!(summary(&Stub::new(&server.addr)).invoice_count, 1_001_000);
    assert!(took < Duration::from_secs(1), "{took:?}");
}
