//! `kill -9` of the server under load. After each restart everything that was acknowledged is there
//! exactly once, no upload is there in part, and the totals are those of the rows.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use billstream::client::Stub;
use billstream::proto::report::{BulkResult, ExportRequest, ReconcileAck};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{RpcStatusCode, WriteFlags};
use rusqlite::Connection;

use crate::support::{
    assert_sound, code, open, options, payment, seed, upload, variable, wait_for, Rng, Served,
};

const UPLOADERS: usize = 3;
const RECONCILERS: usize = 3;
const EXPORTERS: usize = 2;
/// The invoices that are paid and exported. Large enough for an export to take a while.
const CUSTOMER: &str = "kills";
const ROWS: usize = 5_000;
/// The longest time under load before the kill, in microseconds.
const MOMENT_US: u64 = 250_000;

const SMALL_LOG: [&str; 2] = ["--wal-limit-bytes", "262144"];

/// An upload, and its result when it was acknowledged.
struct Sent {
    customer: String,
    rows: usize,
    has_batch_id: bool,
    result: Option<BulkResult>,
}

/// An event, and its acknowledgement when it came.
struct Paid {
    event_id: String,
    invoice: usize,
    ack: Option<ReconcileAck>,
}

/// What one round did to the server.
#[derive(Default)]
struct Round {
    uploads: Vec<Sent>,
    events: Vec<Paid>,
    exports: usize,
}

/// What each kind of thread has finished so far: the kill waits for some of each.
#[derive(Default)]
struct Progress {
    uploads: AtomicUsize,
    events: AtomicUsize,
    rows: AtomicUsize,
}

#[test]
fn a_killed_server_has_what_it_acknowledged() {
    let mut rng = Rng::new(seed("kills"));
    let rounds = variable("BILLSTREAM_TEST_KILLS", 5);
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    let mut served = Served::start(&db, &[]);
    upload(&Stub::new(&served.addr.to_string()), CUSTOMER, ROWS, None).unwrap();
    let mut count = Count::default();
    for round in 0..rounds {
        let done = load_and_kill(served, round, &mut rng);
        // The restarted server is the first to read what the killed one left.
        // In every other round checkpoints are many, so that some are cut in the middle.
        served = Served::start(&db, if round % 2 == 0 { &SMALL_LOG } else { &[] });
        let client = Stub::new(&served.addr.to_string());
        let conn = open(&db);
        assert_sound(&conn);
        check_uploads(&client, &conn, &done.uploads, &mut count);
        check_events(&client, &conn, &done.events, &mut count);
        count.exports += done.exports;
        check_payments(&conn);
    }
    served.stop();
    check_all(&db, &count);
    println!("kills: {rounds} rounds: {count:?}");
}

/// The outcomes of all rounds.
#[derive(Debug, Default)]
struct Count {
    uploads_acknowledged: usize,
    uploads_unacknowledged_present: usize,
    uploads_unacknowledged_absent: usize,
    events_acknowledged: usize,
    events_unacknowledged_present: usize,
    events_unacknowledged_absent: usize,
    exports: usize,
    /// Invoices that must be there in the end.
    rows: usize,
}

/// Loads the server with everything at once, kills it, and tells what became of each call.
fn load_and_kill(served: Served, round: u64, rng: &mut Rng) -> Round {
    let addr = served.addr.to_string();
    let progress = Progress::default();
    let moment = rng.moment(MOMENT_US);
    let seeds: Vec<u64> = (0..UPLOADERS).map(|_| rng.next()).collect();
    std::thread::scope(|scope| {
        let (addr, progress) = (&addr, &progress);
        let uploaders: Vec<_> = seeds
            .iter()
            .enumerate()
            .map(|(i, seed)| {
                scope.spawn(move || upload_on(addr, &format!("up-{round}-{i}"), *seed, progress))
            })
            .collect();
        let reconcilers: Vec<_> = (0..RECONCILERS)
            .map(|i| {
                scope.spawn(move || pay_on(addr, &format!("pay-{round}-{i}"), i > 0, progress))
            })
            .collect();
        let exporters: Vec<_> =
            (0..EXPORTERS).map(|_| scope.spawn(move || export_on(addr, progress))).collect();
        wait_for("the load is under way", || {
            let done = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
            done(&progress.uploads) >= UPLOADERS
                && done(&progress.events) >= RECONCILERS
                && done(&progress.rows) > 0
        });
        std::thread::sleep(moment);
        served.kill();
        Round {
            uploads: uploaders.into_iter().flat_map(|thread| thread.join().unwrap()).collect(),
            events: reconcilers.into_iter().flat_map(|thread| thread.join().unwrap()).collect(),
            exports: exporters.into_iter().map(|thread| thread.join().unwrap()).sum(),
        }
    })
}

/// Uploads until the server is gone.
fn upload_on(addr: &str, name: &str, seed: u64, progress: &Progress) -> Vec<Sent> {
    let (client, mut rng) = (Stub::new(addr), Rng::new(seed));
    let mut sent = Vec::new();
    loop {
        let customer = format!("{name}-{}", sent.len());
        let most = rng.pick(&[5, 50, 500]);
        let rows = rng.range(1, most) as usize;
        let has_batch_id = rng.range(0, 2) > 0;
        let result = upload(&client, &customer, rows, has_batch_id.then_some(&customer));
        let is_over = result.as_ref().err().map(assert_gone).is_some();
        sent.push(Sent { customer, rows, has_batch_id, result: result.ok() });
        if is_over {
            return sent;
        }
        progress.uploads.fetch_add(1, Ordering::Relaxed);
    }
}

/// The one error that a killed server may cause.
fn assert_gone(error: &grpcio::Error) {
    assert_eq!(code(error), Some(RpcStatusCode::UNAVAILABLE), "{error}");
}

/// Pays until the server is gone; `ahead` sends many events before it reads their acknowledgements.
fn pay_on(addr: &str, name: &str, ahead: bool, progress: &Progress) -> Vec<Paid> {
    let client = Stub::new(addr);
    let (mut events, mut acks) = client.reconcile(options()).unwrap();
    let mut paid = Vec::new();
    let at_once = if ahead { 20 } else { 1 };
    loop {
        let first = paid.len();
        for i in first..first + at_once {
            let (event_id, invoice) = (format!("{name}-{i}"), i * 7 % ROWS);
            let event = payment(event_id.clone(), CUSTOMER, invoice, 10);
            paid.push(Paid { event_id, invoice, ack: None });
            if block_on(events.send((event, WriteFlags::default()))).is_err() {
                break;
            }
        }
        for event in &mut paid[first..] {
            // `None`, or an error, when the server is gone.
            let Some(Ok(ack)) = block_on(acks.next()) else { return paid };
            assert_eq!(ack.event_id, event.event_id, "acknowledgements come in order");
            event.ack = Some(ack);
            progress.events.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Exports until the server is gone; how many were complete.
fn export_on(addr: &str, progress: &Progress) -> usize {
    let client = Stub::new(addr);
    let mut exports = 0;
    loop {
        let mut rows = client.export_invoices(&ExportRequest::new(), options()).unwrap();
        let mut last = 0;
        while let Some(row) = block_on(rows.next()) {
            match row {
                Ok(row) => {
                    assert!(row.sequence > last, "rows come in the order of sequence");
                    last = row.sequence;
                    progress.rows.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    assert_gone(&error);
                    return exports;
                }
            }
        }
        exports += 1;
    }
}

/// The number of invoices of an upload, and its first and last sequence.
fn stored_upload(conn: &Connection, customer: &str) -> (usize, i64, i64) {
    let query = "SELECT count(*), ifnull(min(sequence), 0), ifnull(max(sequence), 0)
                 FROM invoices WHERE customer_id = ?1";
    conn.prepare_cached(query)
        .unwrap()
        .query_row([customer], |row| Ok((row.get::<_, i64>(0)? as usize, row.get(1)?, row.get(2)?)))
        .unwrap()
}

fn check_uploads(client: &Stub, conn: &Connection, uploads: &[Sent], count: &mut Count) {
    for sent in uploads {
        let (customer, rows) = (&sent.customer, sent.rows);
        let before = stored_upload(conn, customer);
        if let Some(result) = &sent.result {
            assert_eq!(
                before,
                (rows, result.first_sequence, result.last_sequence),
                "{customer} was acknowledged"
            );
            count.uploads_acknowledged += 1;
        } else {
            assert!(
                before.0 == 0 || before.0 == rows,
                "{customer}: {} of {rows} invoices",
                before.0
            );
            match before.0 {
                0 => count.uploads_unacknowledged_absent += 1,
                _ => count.uploads_unacknowledged_present += 1,
            }
        }
        if sent.has_batch_id {
            let again = upload(client, customer, rows, Some(customer)).unwrap();
            assert_eq!(again.already_applied, before.0 == rows, "{customer}");
            let after = stored_upload(conn, customer);
            assert_eq!(
                after,
                (rows, again.first_sequence, again.last_sequence),
                "{customer} after its retry"
            );
        }
        count.rows += stored_upload(conn, customer).0;
    }
}

/// Sends the events that have no acknowledgement once more, and then all are there once.
fn check_events(client: &Stub, conn: &Connection, events: &[Paid], count: &mut Count) {
    let outcome = |event_id: &str| {
        conn.prepare_cached("SELECT outcome FROM reconcile_events WHERE event_id = ?1")
            .unwrap()
            .query_row([event_id], |row| row.get::<_, i32>(0))
            .ok()
    };
    let (mut requests, mut acks) = client.reconcile(options()).unwrap();
    for event in events {
        let before = outcome(&event.event_id);
        if let Some(ack) = &event.ack {
            assert_eq!(before, Some(ack.outcome.value()), "{} was acknowledged", event.event_id);
            assert!(!ack.duplicate, "{} was sent once", event.event_id);
            count.events_acknowledged += 1;
            continue;
        }
        match before {
            Some(_) => count.events_unacknowledged_present += 1,
            None => count.events_unacknowledged_absent += 1,
        }
        let request = payment(event.event_id.clone(), CUSTOMER, event.invoice, 10);
        block_on(requests.send((request, WriteFlags::default()))).unwrap();
        let ack = block_on(acks.next()).unwrap().unwrap();
        assert_eq!(ack.duplicate, before.is_some(), "{}", event.event_id);
        assert_eq!(outcome(&event.event_id), Some(ack.outcome.value()));
    }
}

/// What each invoice was paid is the sum of the events that were applied to it: each once.
fn check_payments(conn: &Connection) {
    let query = "SELECT count(*) FROM invoices LEFT JOIN
                   (SELECT invoice_id, sum(amount_cents) AS cents FROM reconcile_events
                    WHERE outcome BETWEEN 1 AND 3 GROUP BY invoice_id) USING (invoice_id)
                 WHERE paid_cents <> ifnull(cents, 0)";
    let differ: i64 = conn.query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(differ, 0, "invoices are not paid what their events say");
}

/// Once more over all rounds, after a regular stop.
fn check_all(db: &Path, count: &Count) {
    let conn = open(db);
    assert_sound(&conn);
    check_payments(&conn);
    let one = |query: &str| conn.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as usize;
    assert_eq!(one("SELECT count(*) FROM invoices"), ROWS + count.rows);
    let events = count.events_acknowledged
        + count.events_unacknowledged_present
        + count.events_unacknowledged_absent;
    assert_eq!(one("SELECT count(*) FROM reconcile_events"), events);
    let commits = "SELECT count(*) FROM bulk_commits JOIN
                     (SELECT customer_id AS batch_id, count(*) AS rows FROM invoices GROUP BY 1)
                   USING (batch_id) WHERE rows <> count";
    assert_eq!(one(commits), 0, "a batch_id that counts other invoices than there are");
}
