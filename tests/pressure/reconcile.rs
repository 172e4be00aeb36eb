//! Reconcile at both extremes, and its two halves that fail as one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::grpc::methods::RECONCILE;
use billstream::proto::report::{ReconcileAck, ReconcileEvent};
use billstream::Config;
use futures::executor::block_on;
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use grpcio::{
    ChannelBuilder, ClientDuplexSender, EnvBuilder, GrpcSlice, Marshaller, Method, RpcStatusCode,
    WriteFlags,
};

use crate::common::*;
use crate::support::*;
/// Sends the next event when the one before is acknowledged.
async fn one_by_one(client: &Stub, name: usize, events: usize) {
    let (mut sink, mut acks) = client.reconcile(options()).unwrap();
    for i in 0..events {
        let event = event(&format!("event-{name}-{i}"), &format!("inv-{name}"), 1);
        let event_id = event.event_id.clone();
        sink.send((event, WriteFlags::default())).await.unwrap();
        assert_eq!(acks.next().await.unwrap().unwrap().event_id, event_id);
    }
    half_close(&mut sink).await;
    assert!(acks.next().await.is_none());
}

/// 64 clients, one event at a time: acks a second, and commits an ack.
fn acks_a_second(config: Config) -> (f64, f64) {
    const CLIENTS: usize = 64;
    const EVENTS: usize = 100;
    let server = TestServer::start(config);
    let clients = clients(&server.addr(), CLIENTS);
    let invoices = (0..CLIENTS).map(|i| invoice(&format!("inv-{i}"), 1_000_000));
    upload(&clients[0], invoices).unwrap();
    let metrics = server.get().metrics();
    let (commits, jobs) = (metrics.commits.get(), metrics.jobs_committed.get());
    let start = Instant::now();
    let streams = clients.iter().enumerate().map(|(i, client)| one_by_one(client, i, EVENTS));
    block_on(join_all(streams));
    let (took, acks) = (start.elapsed(), (CLIENTS * EVENTS) as f64);
    assert_eq!(metrics.jobs_committed.get() - jobs, acks as u64);
    let paid: i64 = summary(&clients[0]).totals[0].paid_cents;
    assert_eq!(paid, acks as i64);
    (acks / took.as_secs_f64(), (metrics.commits.get() - commits) as f64 / acks)
}

#[test]
fn clients_of_one_event_at_a_time_share_their_commits() {
    let _alone = alone();
    let (alone, commits_alone) = acks_a_second(Config {
        group_commit_rows: 1,
        reconcile_batch_events: 1,
        ..Config::default()
    });
    let (shared, commits) = acks_a_second(Config::default());
    println!(
        "64 clients, a commit for each event: {alone:.0} acks/s, {commits_alone:.3} commits an ack"
    );
    println!(
        "64 clients, group commit:            {shared:.0} acks/s, {commits:.3} commits an ack"
    );
    println!("ratio: {:.2}", shared / alone);
    assert_eq!(commits_alone, 1.0);
    assert!(commits < 0.5, "{commits} commits an ack");
}

const UNREAD: usize = 100_000;

/// Sends all events as fast as flow control lets it, and counts them.
async fn pour(mut sink: ClientDuplexSender<ReconcileEvent>, sent: Arc<AtomicUsize>) {
    for i in 0..UNREAD {
        let mut event = event(&format!("event-{i:06}"), &format!("inv-{:08}", 1 + i % 100), 1);
        event.currency = ["USD", "EUR", "JPY"][(1 + i % 100) % 3].to_owned();
        event.reference = "r".repeat(300);
        sink.send((event, WriteFlags::default().buffer_hint(i % 64 != 0))).await.unwrap();
        sent.store(i + 1, Ordering::Relaxed);
    }
    half_close(&mut sink).await;
}

/// Waits until `count` stands still for a second: its thread is held.
fn stands_still(count: &AtomicUsize) -> usize {
    let (mut last, mut since) = (0, Instant::now());
    eventually("it stands still", || {
        let now = count.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        now > 0 && since.elapsed() > Duration::from_secs(1)
    });
    last
}

#[test]
fn a_client_that_reads_no_ack_is_held_and_then_gets_every_one() {
    let _alone = alone();
    let server = Process::with_copy(&database(10_000), &[]);
    let client = slow_clients(&server.addr, 1).remove(0);
    summary(&client);
    let memory = server.rss_mib();
    let (sink, mut acks) = client.reconcile(options()).unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sender = std::thread::spawn(move || block_on(pour(sink, count)));
    let held_at = stands_still(&sent);
    println!(
        "held after {held_at} of {UNREAD} events; memory: {memory} MiB, now {}",
        server.rss_mib()
    );
    assert!(held_at < UNREAD, "nothing held the client");
    assert!(server.rss_mib() < memory + 64);

    let start = Instant::now();
    block_on(async {
        for i in 0..UNREAD {
            let ack = acks.next().await.unwrap().unwrap();
            assert_eq!((ack.event_id, ack.duplicate), (format!("event-{i:06}"), false));
        }
        assert!(acks.next().await.is_none());
    });
    sender.join().unwrap();
    println!("then every ack in {:?}; memory {} MiB", start.elapsed(), server.rss_mib());
    assert!(server.rss_mib() < memory + 64);
    assert_eq!(summary(&client).totals.iter().map(|t| t.paid_cents).sum::<i64>(), UNREAD as i64);
}

#[test]
fn an_idle_stream_ends_beside_one_at_work() {
    let server = TestServer::start(Config { idle_timeout_ms: 1000, ..Config::default() });
    let client = server.client();
    upload(&client, [invoice("inv-0", 100)]).unwrap();
    let (_sink, mut idle) = client.reconcile(options()).unwrap();
    let (mut sink, mut busy) = client.reconcile(options()).unwrap();
    block_on(async {
        let (mut ended, start) = (idle.next(), Instant::now());
        for i in 0.. {
            assert!(start.elapsed() < DEADLINE, "it does not end");
            let event = event(&format!("e{i}"), "inv-0", 1);
            sink.send((event, WriteFlags::default())).await.unwrap();
            busy.next().await.unwrap().unwrap();
            if let Some(end) = futures::FutureExt::now_or_never(&mut ended) {
                let end = end.unwrap();
                assert_status(end, RpcStatusCode::DEADLINE_EXCEEDED, "idle_timeout_ms");
                break;
            }
        }
        half_close(&mut sink).await;
        assert!(busy.next().await.is_none());
    });
    eventually("the streams are closed", || server.get().streams_open() == 0);
}

/// Nothing is left of a stream: not its place, and no job.
fn nothing_is_left(mut server: TestServer) {
    eventually("the stream is closed", || server.get().streams_open() == 0);
    let start = Instant::now();
    server.stop();
    // The default drain is 10 s.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn a_message_that_is_none_ends_both_halves() {
    let bytes = |bytes: &Vec<u8>, buffer: &mut GrpcSlice| {
        *buffer = GrpcSlice::from(&bytes[..]);
        Ok(())
    };
    let method: Method<Vec<u8>, ReconcileAck> = Method {
        ty: RECONCILE.ty,
        name: RECONCILE.name,
        req_mar: Marshaller { ser: bytes, de: |_| unreachable!("a client receives no requests") },
        resp_mar: Marshaller { ser: RECONCILE.resp_mar.ser, de: RECONCILE.resp_mar.de },
    };
    let server = TestServer::start(Config::default());
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let client = grpcio::Client::new(ChannelBuilder::new(env).connect(&server.addr()));
    let (mut sink, mut acks) = client.duplex_streaming(&method, options()).unwrap();
    let end = block_on(async {
        // It may fail, because the call may be over by then.
        let _ = sink.send((vec![0xff; 20], WriteFlags::default())).await;
        // The input stays open.
        acks.next().await.unwrap()
    });
    assert_status(end, RpcStatusCode::INVALID_ARGUMENT, "ReconcileEvent");
    nothing_is_left(server);
}

/// Sends until the call is over. Gives the sink back: dropped, it would cancel a call whose status
/// was not read yet.
async fn send_until_refused(
    mut sink: ClientDuplexSender<ReconcileEvent>,
) -> ClientDuplexSender<ReconcileEvent> {
    for i in 0.. {
        let event = event(&format!("event-{i}"), "nothing", 1);
        if sink.send((event, WriteFlags::default())).await.is_err() {
            break;
        }
    }
    sink
}

#[test]
fn acks_that_nobody_takes_end_both_halves() {
    let server = TestServer::start(Config { stall_timeout_ms: 300, ..Config::default() });
    let client = server.slow_client();
    let (sink, mut acks) = client.reconcile(options()).unwrap();
    let sender = std::thread::spawn(move || block_on(send_until_refused(sink)));
    let metrics = server.get().metrics();
    eventually("the stream is given up", || metrics.calls_failed.get() == 1);
    // It comes back for them.
    let (got, error) = block_on(async {
        let mut got = Vec::new();
        loop {
            match acks.next().await.unwrap() {
                Ok(ack) => got.push(ack),
                Err(error) => return (got, error),
            }
        }
    });
    for (i, ack) in got.iter().enumerate() {
        assert_eq!(ack.event_id, format!("event-{i}"));
    }
    assert_status(Err::<(), _>(error), RpcStatusCode::DEADLINE_EXCEEDED, "stall_timeout_ms");
    drop(sender.join().unwrap());
    nothing_is_left(server);
}

#[test]
fn a_client_that_never_comes_back_for_its_acks_leaves_nothing() {
    let server = TestServer::start(Config { stall_timeout_ms: 300, ..Config::default() });
    let client = server.slow_client();
    let (sink, _acks) = client.reconcile(options()).unwrap();
    let sender = std::thread::spawn(move || block_on(send_until_refused(sink)));
    let metrics = server.get().metrics();
    eventually("the stream is given up", || metrics.calls_failed.get() == 1);
    eventually("its place is free", || server.get().streams_open() == 0);
    drop(sender.join().unwrap());
    nothing_is_left(server);
}

#[test]
fn a_cancel_in_the_middle_ends_both_halves() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    for _ in 0..20 {
        let (mut sink, mut acks) = client.reconcile(options()).unwrap();
        block_on(async {
            for i in 0..100 {
                let event = event(&format!("event-{i}"), "nothing", 1);
                sink.send((event, WriteFlags::default())).await.unwrap();
            }
            acks.next().await.unwrap().unwrap();
        });
    }
    nothing_is_left(server);
}
