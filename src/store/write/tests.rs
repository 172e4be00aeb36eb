//! What becomes of the jobs of a commit, and of those that wait.

use super::*;
use crate::model::{CurrencyTotal, Filter, NewInvoice, Sums, Timestamp};
use crate::stop::Stop;
use crate::store::{Store, StoreThread, Wait};
use futures::executor::block_on;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};

const UPLOADS: Lane = Lane::Uploads;

/// A store whose writer is busy until it is let go, so that what is handed over meanwhile is one group.
struct Held {
    store: Store,
    thread: Option<StoreThread>,
    let_go: Option<Sender<()>>,
    dir: tempfile::TempDir,
}

impl Held {
    fn new(change: impl FnOnce(&mut Config)) -> Held {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        change(&mut config);
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let (let_go, gate) = channel();
        let (begun, begins) = channel();
        // The job is on its way for as long as the writer waits in it.
        let hold = move |_: Work<'_>| {
            begun.send(()).unwrap();
            wait_at(&gate)
        };
        let held = store.0.writer.submit(Lane::Payments, 1, hold).unwrap();
        begins.recv().unwrap();
        // Nobody asks for its result.
        std::mem::forget(held);
        Held { store, thread: Some(thread), let_go: Some(let_go), dir }
    }

    fn go(&mut self) {
        self.let_go = None;
    }

    fn upload(&self, ids: &[&str]) -> Reply<Created> {
        self.store.create(String::new(), upload(ids), false).unwrap()
    }

    /// The totals of a customer, or of all.
    fn totals(&self, customer_id: &str) -> Vec<CurrencyTotal> {
        let filter = Filter { customer_id: customer_id.to_owned(), ..Filter::ALL };
        self.store.summary(&filter, Wait::Until(&Stop::default())).unwrap().totals
    }

    /// A job that counts its runs.
    fn counted(&self, lane: Lane, runs: &Arc<AtomicUsize>) -> Reply<()> {
        let runs = Arc::clone(runs);
        let count = move |_: Work<'_>| {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        self.store.0.writer.submit(lane, 1, count).unwrap()
    }

    /// A job whose caller leaves while it runs; it is done when the other end is dropped.
    fn leaves_while_it_runs(&self, lane: Lane) {
        let (running, runs) = channel();
        let (let_go, gate) = channel();
        let run = move |_: Work<'_>| {
            // It is run once more where the caller that left makes no difference.
            let _ = running.send(());
            wait_at(&gate)
        };
        let reply = self.store.0.writer.submit(lane, 1, run).unwrap();
        std::thread::spawn(move || {
            runs.recv().unwrap();
            drop(reply);
            drop(let_go);
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.go();
        self.thread.take().unwrap().stop();
    }
}

fn upload(ids: &[&str]) -> Staged {
    let mut staged = Staged::default();
    for invoice_id in ids {
        staged.push(&NewInvoice {
            invoice_id,
            customer_id: "c",
            total_amount_cents: 5,
            currency: "EUR",
            issued_at: Timestamp { seconds: 0, nanos: 0 },
            memo: "",
        });
    }
    staged
}

/// The totals of so many of them.
fn euros(count: i64) -> CurrencyTotal {
    let sums = Sums { invoice_count: count, total_cents: 5 * count, ..Sums::default() };
    CurrencyTotal { currency: "EUR".to_owned(), sums }
}

fn wait_at(gate: &Receiver<()>) -> Result<()> {
    // It ends when the other side is dropped.
    let _ = gate.recv();
    Ok(())
}

/// They are of one commit, and all invoices are of one customer.
#[test]
fn the_totals_are_those_of_the_jobs_that_did_not_fail() {
    let mut held = Held::new(|_| ());
    let uploads = [held.upload(&["1", "2"]), held.upload(&["3", "3"]), held.upload(&["4"])];
    held.go();
    let created = uploads.map(|upload| block_on(upload).map(|created| created.count));
    assert_eq!(created[0], Ok(2));
    assert!(matches!(created[1], Err(Error::AlreadyExists(_))), "{created:?}");
    assert_eq!(created[2], Ok(1));
    for customer_id in ["", "c"] {
        assert_eq!(held.totals(customer_id), [euros(3)]);
    }
}

#[test]
fn a_database_that_stays_locked_is_unavailable_to_every_job() {
    let mut held = Held::new(|config| config.busy_timeout_ms = 50);
    let uploads = [held.upload(&["1"]), held.upload(&["2"]), held.upload(&["3"])];
    let other = crate::store::sqlite::Connection::open(held.dir.path().join("bills.db")).unwrap();
    other.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    held.go();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for created in uploads.map(block_on) {
        // The first may have been quicker than the lock.
        assert!(matches!(created, Ok(_) | Err(Error::Unavailable(_))), "{created:?}");
    }
    for created in [held.upload(&["4"]), held.upload(&["5"])].map(block_on) {
        assert!(matches!(created, Err(Error::Unavailable(_))), "{created:?}");
    }
    drop(other);
    assert_eq!(block_on(held.upload(&["6"])).unwrap().count, 1);
}

#[test]
fn a_panic_fails_its_job_alone() {
    let mut held = Held::new(|_| ());
    let first = held.upload(&["1"]);
    let panics = |_: Work<'_>| -> Result<()> { panic!("on purpose") };
    let second = held.store.0.writer.submit(UPLOADS, 1, panics).unwrap();
    let third = held.upload(&["3"]);
    held.go();
    assert!(matches!(block_on(second), Err(Error::Internal(_))));
    assert_eq!(block_on(first).unwrap().count, 1);
    assert_eq!(block_on(third).unwrap().count, 1);
}

/// However many leave, and whenever.
#[test]
fn callers_that_leave_make_no_payment_run_again_and_an_upload_once() {
    let mut held = Held::new(|_| ());
    let [payments, uploads] = [Arc::<AtomicUsize>::default(), Arc::default()];
    let paid = held.counted(Lane::Payments, &payments);
    let created = held.counted(UPLOADS, &uploads);
    for _ in 0..10 {
        held.leaves_while_it_runs(Lane::Payments);
        held.leaves_while_it_runs(UPLOADS);
    }
    let last = held.counted(UPLOADS, &uploads);
    held.go();
    block_on(paid).unwrap();
    block_on(created).unwrap();
    block_on(last).unwrap();
    assert_eq!(payments.load(Ordering::SeqCst), 1);
    assert!(uploads.load(Ordering::SeqCst) <= 2 * 2, "{uploads:?}");
}

#[test]
fn an_upload_that_nobody_waits_for_is_not_created() {
    let mut held = Held::new(|_| ());
    held.leaves_while_it_runs(UPLOADS);
    drop(held.upload(&["1"]));
    let created = held.upload(&["2"]);
    held.go();
    assert_eq!(block_on(created).unwrap().first_sequence, 1);
}

/// Also when the writer waits for another process, with nothing in its hands.
#[test]
fn a_caller_that_leaves_gives_its_place_free_at_once() {
    let held = Held::new(|config| (config.max_uploads, config.max_reconciles) = (3, 1));
    for i in 0..20 {
        drop(held.upload(&[&i.to_string()]));
    }
    let waiting = [1, 2, 3, 4].map(|i| held.upload(&[&i.to_string()]));
    let refused = held.store.0.writer.create(String::new(), Staged::default(), false).err();
    let Some(Error::Exhausted { retry_after: Some(_), .. }) = refused else {
        panic!("{refused:?}");
    };
    drop(waiting);
    drop(held.upload(&["5"]));
}

#[test]
fn a_writer_that_is_to_stop_says_so() {
    let mut held = Held::new(|_| ());
    let created = held.upload(&["1"]);
    let writer = held.store.0.writer.clone();
    writer.queue.close();
    let refused = writer.apply(Arc::default(), false).err();
    assert_eq!(refused, Some(Error::Unavailable("the server is shutting down".to_owned())));
    held.go();
    assert_eq!(block_on(created).unwrap().count, 1);
}

/// Between jobs that are booked, some of which fail, so that all ways to a commit are gone.
#[test]
fn a_trial_says_what_would_be_and_leaves_nothing() {
    let mut held = Held::new(|_| ());
    let try_out = |ids: &[&str]| held.store.create("batch".to_owned(), upload(ids), true).unwrap();
    let tried = [try_out(&["1", "2", "3"]), try_out(&["1", "1"]), try_out(&["1"])];
    let booked = [held.upload(&["1", "2"]), held.upload(&["3", "3"]), held.upload(&["4"])];
    held.go();
    let booked = booked.map(|upload| block_on(upload).map(|created| created.last_sequence));
    assert_eq!((&booked[0], &booked[2]), (&Ok(2), &Ok(3)));
    // The lanes take turns: the first trial ran after what was booked.
    for tried in tried.map(block_on) {
        assert!(matches!(tried, Err(Error::AlreadyExists(_))), "{tried:?}");
    }
    for _ in 0..2 {
        let staged = upload(&["5", "6"]);
        let tried = block_on(held.store.create("batch".to_owned(), staged, true).unwrap()).unwrap();
        assert_eq!((tried.first_sequence, tried.last_sequence), (4, 5));
        assert_eq!(tried.totals, [euros(2)]);
        assert_eq!((held.totals(""), held.totals("c")), (vec![euros(3)], vec![euros(3)]));
    }
    let created = held.store.create("batch".to_owned(), upload(&["7"]), false).unwrap();
    assert_eq!(block_on(created).unwrap().first_sequence, 4);
}
