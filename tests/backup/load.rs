//! Uploads and payments without a pause, and what was acknowledged of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use billstream::client::Client;
use billstream::{server, Config};

use crate::common::*;

const UPLOADERS: usize = 2;
const ROWS: usize = 200;

/// What its clients know to be there: the rows of each batch, and how many payments of a cent.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub batches: BTreeMap<String, usize>,
    pub payments: usize,
}

/// Clients that write until this is stopped.
pub struct Load {
    is_over: Arc<AtomicBool>,
    known: Arc<Mutex<Known>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// On the server at `addr`. They end too when that is gone.
    pub fn start(addr: &str) -> Load {
        Load::start_named(addr, "batch")
    }

    /// With ids that begin with `name`.
    pub fn start_named(addr: &str, name: &str) -> Load {
        let (is_over, known) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Known>>::default());
        let client = Client::connect(addr).with_retries(std::time::Duration::ZERO);
        let mut upload_first = client.upload().unwrap();
        let paid = format!("paid-{name}");
        upload_first.send(&invoice(&paid, 1_000_000)).unwrap();
        upload_first.commit(&paid).unwrap();
        let mut threads = Vec::new();
        for uploader in 0..UPLOADERS {
            let (client, over, known) = (client.clone(), Arc::clone(&is_over), Arc::clone(&known));
            let name = format!("{name}-{uploader}");
            threads.push(thread::spawn(move || upload_until(&client, &name, &over, &known)));
        }
        let (over, told) = (Arc::clone(&is_over), Arc::clone(&known));
        threads.push(thread::spawn(move || pay_until(&client, &paid, &over, &told)));
        Load { is_over, known, threads }
    }

    pub fn known(&self) -> Known {
        self.known.lock().unwrap().clone()
    }

    /// Waits until so many more batches are acknowledged.
    pub fn go_on(&self, batches: usize) {
        let until = self.known().batches.len() + batches;
        eventually("the load goes on", || self.known().batches.len() >= until);
    }

    pub fn stop(self) -> Known {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let known = self.known.lock().unwrap();
        known.clone()
    }
}

/// An error is the end of the server.
fn upload_until(client: &Client, name: &str, over: &AtomicBool, known: &Mutex<Known>) {
    for batch in 0.. {
        let batch_id = format!("{name}-{batch}");
        let create = || {
            let mut upload = client.upload()?;
            for i in 0..ROWS {
                upload.send(&invoice(&format!("{batch_id}/{i}"), 100))?;
            }
            upload.commit(&batch_id)
        };
        if over.load(Ordering::Relaxed) || create().is_err() {
            return;
        }
        known.lock().unwrap().batches.insert(batch_id, ROWS);
    }
}

fn pay_until(client: &Client, paid: &str, over: &AtomicBool, known: &Mutex<Known>) {
    for i in 0.. {
        let (events, mut acks) = client.reconcile().split();
        let sent = events.send(event(&format!("{paid}-{i}"), paid, 1));
        events.finish();
        let ack = acks.next();
        if over.load(Ordering::Relaxed) || sent.is_err() || !matches!(ack, Some(Ok(_))) {
            return;
        }
        known.lock().unwrap().payments += 1;
    }
}

/// Restores the database from `copy` as an operator would, and holds it to what was `known` before the copy:
/// it is sound, each batch is whole or absent, and what was acknowledged is there.
pub fn assert_holds(copy: &Path, known: &Known) {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("restored.db");
    succeeds(billstream("restore").arg("--from").arg(copy).arg("--db").arg(&db));
    let report = server::check(&Config { db: db.clone(), ..Config::default() }).unwrap();
    assert!(report.faults.is_empty(), "{report}");
    let conn = rusqlite::Connection::open(&db).unwrap();
    let batches = "SELECT substr(invoice_id, 1, instr(invoice_id, '/') - 1), count(*) FROM invoices
        WHERE invoice_id LIKE '%/%' GROUP BY 1";
    let mut batches = conn.prepare(batches).unwrap();
    let rows = batches.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)));
    let there: BTreeMap<String, usize> = rows.unwrap().map(Result::unwrap).collect();
    assert!(there.values().all(|rows| *rows == ROWS), "{there:?}");
    let missing: Vec<_> = known.batches.keys().filter(|id| !there.contains_key(*id)).collect();
    assert!(missing.is_empty(), "{missing:?} of {} are missing", known.batches.len());
    let paid = "SELECT sum(paid_cents) FROM invoices";
    let paid: i64 = conn.query_row(paid, [], |row| row.get(0)).unwrap();
    assert!(paid >= known.payments as i64, "{paid} of {} payments", known.payments);
    println!(
        "{} batches and {paid} payments are there; {} and {} were acknowledged before",
        there.len(),
        known.batches.len(),
        known.payments
    );
}

pub fn billstream(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_billstream"));
    program.arg(command);
    program
}

pub fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}
