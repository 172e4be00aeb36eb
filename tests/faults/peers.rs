//! Peers that go away in the middle of a stream, with a word or without one, leave nothing behind.

use std::sync::Arc;
use std::time::Duration;

use billstream::client::Stub;
use billstream::proto::report::{
    BulkResult, CreateInvoiceRequest, ExportRequest, Invoice, InvoiceBatch, ReconcileAck,
    ReconcileEvent,
};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{
    ClientCStreamReceiver, ClientCStreamSender, ClientDuplexReceiver, ClientDuplexSender,
    ClientSStreamReceiver, Environment, WriteFlags,
};

use crate::proxy::{Cut, Proxy};
use crate::support::{
    assert_sound, environment, options, payment, rows_by_customer, seed, send_rows, upload,
    variable, wait_for, Local, Rng,
};

/// Far more rows than fit into the buffers between a scan and a client that does not read.
const ROWS: usize = 40_000;
const CUSTOMER: &str = "peers";
/// Streams that are open when all of them are cut.
const AT_ONCE: u64 = 20;

/// A stream in its middle. Dropping it would cancel the call, so it is kept until after the cut.
enum Open {
    Invoices {
        _rows: ClientSStreamReceiver<Invoice>,
    },
    Batches {
        _batches: ClientSStreamReceiver<InvoiceBatch>,
    },
    Reconcile {
        _halves: (ClientDuplexSender<ReconcileEvent>, ClientDuplexReceiver<ReconcileAck>),
    },
    Upload {
        _halves: (ClientCStreamSender<CreateInvoiceRequest>, ClientCStreamReceiver<BulkResult>),
    },
}

/// A connection of its own with one stream.
struct Peer {
    proxy: Proxy,
    name: String,
    /// Events that were acknowledged.
    acknowledged: usize,
    _open: Open,
}

impl Peer {
    fn open(local: &Local, env: &Arc<Environment>, number: u64, rng: &mut Rng) -> Peer {
        let proxy = Proxy::start(local.addr());
        let client = Stub::with_env(Arc::clone(env), &proxy.addr());
        let name = format!("peer-{number}");
        let some = rng.range(1, 300) as usize;
        let (open, acknowledged) = match number % 4 {
            0 => (block_on(read_invoices(&client, some)), 0),
            1 => (block_on(read_batches(&client)), 0),
            2 => (block_on(reconcile(&client, &name, some)), some),
            _ => (block_on(send_some(&client, &name, some)), 0),
        };
        Peer { proxy, name, acknowledged, _open: open }
    }
}

async fn read_invoices(client: &Stub, some: usize) -> Open {
    let mut rows = client.export_invoices(&ExportRequest::new(), options()).unwrap();
    for _ in 0..some {
        rows.next().await.unwrap().unwrap();
    }
    Open::Invoices { _rows: rows }
}

async fn read_batches(client: &Stub) -> Open {
    let mut batches = client.export_invoice_batches(&ExportRequest::new(), options()).unwrap();
    batches.next().await.unwrap().unwrap();
    Open::Batches { _batches: batches }
}

/// All events are sent before the first acknowledgement is read.
async fn reconcile(client: &Stub, name: &str, some: usize) -> Open {
    let (mut events, mut acks) = client.reconcile(options()).unwrap();
    for i in 0..some {
        let event = payment(format!("{name}-{i}"), CUSTOMER, i, 1);
        events.send((event, WriteFlags::default())).await.unwrap();
    }
    for _ in 0..some {
        acks.next().await.unwrap().unwrap();
    }
    Open::Reconcile { _halves: (events, acks) }
}

async fn send_some(client: &Stub, name: &str, some: usize) -> Open {
    let (mut requests, result) = client.bulk_create(options()).unwrap();
    send_rows(&mut requests, name, 0..some).await.unwrap();
    Open::Upload { _halves: (requests, result) }
}

fn seeded(change: impl FnOnce(&mut billstream::Config)) -> Local {
    let local = Local::start(change);
    upload(&local.client(), CUSTOMER, ROWS, None).unwrap();
    local
}

fn nothing_is_left(local: &Local) -> Duration {
    wait_for("all streams have ended, and no connection is in use", || {
        local.server.streams_open() == 0 && local.server.connections_in_use() == 0
    })
}

/// Every event that was acknowledged is there, and no upload is: none was complete.
fn check(local: Local, peers: &[(String, usize)]) {
    local.stop_and(|conn| {
        assert_sound(conn);
        assert_eq!(rows_by_customer(conn).len(), 1, "an upload without an end was created");
        let mut count = conn
            .prepare("SELECT count(*) FROM reconcile_events WHERE event_id GLOB ?1 || '-*'")
            .unwrap();
        for (name, acknowledged) in peers {
            let stored: i64 = count.query_row([name], |row| row.get(0)).unwrap();
            assert_eq!(stored, *acknowledged as i64, "events of {name}");
        }
    });
}

#[test]
fn connections_cut_in_the_middle_leave_nothing_open() {
    let mut rng = Rng::new(seed("peers"));
    let cuts = variable("BILLSTREAM_TEST_CUTS", 200);
    let local = seeded(|_| ());
    let env = environment();
    let (mut longest, mut done) = (Duration::ZERO, Vec::new());
    while (done.len() as u64) < cuts {
        let first = done.len() as u64;
        let open = |number| Peer::open(&local, &env, number, &mut rng);
        let peers: Vec<Peer> = (first..first + AT_ONCE).map(open).collect();
        wait_for("all streams are in their middle", || local.server.streams_open() == peers.len());
        for peer in &peers {
            peer.proxy.cut(rng.pick(&[Cut::Reset, Cut::Finish]));
        }
        longest = longest.max(nothing_is_left(&local));
        done.extend(peers.into_iter().map(|peer| (peer.name, peer.acknowledged)));
    }
    println!(
        "peers: {} connections cut; all was free at most {longest:?} after the last cut",
        done.len()
    );
    check(local, &done);
}

/// No end of the connection ever arrives: only the limits on time can end these streams.
#[test]
fn peers_that_fall_silent_are_ended_by_the_limits() {
    let mut rng = Rng::new(seed("silent peers"));
    let local = seeded(|config| {
        config.stall_timeout_ms = 500;
        config.idle_timeout_ms = 500;
    });
    let env = environment();
    let open = |number| {
        let peer = Peer::open(&local, &env, number, &mut rng);
        peer.proxy.forward_at_most(0);
        peer.proxy.swallow_answers();
        peer
    };
    let peers: Vec<Peer> = (0..AT_ONCE).map(open).collect();
    let took = nothing_is_left(&local);
    println!("silent peers: {} streams were ended after {took:?}", peers.len());
    // Well before the deadlines of the calls themselves.
    assert!(took < Duration::from_secs(20), "{took:?}");
    let names: Vec<_> = peers.iter().map(|peer| (peer.name.clone(), peer.acknowledged)).collect();
    drop(peers);
    check(local, &names);
}

/// A client that went away without cancelling is no different from one whose connection was cut.
#[test]
fn a_dropped_client_ends_its_streams() {
    let local = seeded(|_| ());
    // With small windows, so that none of them ends before all are open.
    let client = local.slow_client();
    let exports: Vec<_> = (0..10).map(|_| block_on(read_invoices(&client, 3))).collect();
    let events = block_on(reconcile(&client, "dropped", 1));
    wait_for("all streams are open", || local.server.streams_open() == 11);
    drop((exports, events, client));
    let took = nothing_is_left(&local);
    println!("dropped client: all was free after {took:?}");
    check(local, &[("dropped".to_owned(), 1)]);
}
