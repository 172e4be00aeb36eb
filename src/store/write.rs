//! The one writer: a thread with the read-write connection, and group commit.
//!
//! It takes the jobs at hand, opens a transaction, runs each job, commits once, and only then answers
//! each with its own result. A failed job rolls back alone; a failed commit fails them all. A job whose
//! caller has gone away is not committed.
//!
//! Jobs run without savepoints at first: inside one, SQLite saves each page before it is changed. Only when
//! a job fails are the jobs of its transaction run again, each in its savepoint.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{bounded, Receiver, Sender};
use futures::channel::oneshot;
use rusqlite::Connection;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::store::scan::WalPressure;
use crate::store::totals::Totals;
use crate::store::wal::Wal;

/// What a job works with, in the transaction that is open.
pub struct Job<'a> {
    pub conn: &'a Connection,
    pub totals: &'a mut Totals,
    /// Tells a long job whether its caller has gone away.
    pub is_unwanted: &'a dyn Fn() -> bool,
}

/// A handle to hand jobs to the writer.
#[derive(Clone)]
pub struct Writer {
    jobs: Sender<Box<dyn Waiting>>,
}

impl Writer {
    /// Hands over `work`; its result comes after the commit. Dropping the receiver before that
    /// takes the job back, if its transaction is not being committed already.
    ///
    /// `work` may be run again, from the start, when another job of its transaction failed or was taken
    /// back.
    /// Never blocks: the queue has room for every stream that the limits of `Config` admit.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnMut(Job<'_>) -> Result<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T>>> {
        let (reply, result) = oneshot::channel();
        let job = Box::new(Task { work, result: Err(Error::Cancelled), reply });
        match self.jobs.try_send(job) {
            Ok(()) => Ok(result),
            Err(e) if e.is_full() => Err(Error::Exhausted {
                message: "too many writes wait".to_owned(),
                retry_after: None,
            }),
            Err(_) => Err(Error::Unavailable("the server is shutting down".to_owned())),
        }
    }
}

/// A job with its caller.
trait Waiting: Send {
    /// Runs the work and keeps its result; whether it succeeded.
    fn run(&mut self, conn: &Connection, totals: &mut Totals) -> bool;
    fn is_unwanted(&self) -> bool;
    /// Answers the caller: with the result, or with `error` where the transaction failed.
    fn finish(self: Box<Self>, error: Option<Error>);
}

struct Task<T, F> {
    work: F,
    result: Result<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnMut(Job<'_>) -> Result<T> + Send> Waiting for Task<T, F> {
    fn run(&mut self, conn: &Connection, totals: &mut Totals) -> bool {
        let Task { work, reply, .. } = self;
        let job = Job { conn, totals, is_unwanted: &|| reply.is_canceled() };
        let work = AssertUnwindSafe(|| work(job));
        self.result = catch_unwind(work)
            .unwrap_or_else(|_| Err(Error::Internal("a job of the writer panicked".to_owned())));
        self.result.is_ok()
    }

    fn is_unwanted(&self) -> bool {
        self.reply.is_canceled()
    }

    fn finish(self: Box<Self>, error: Option<Error>) {
        let result = match error {
            // Its own error says more than that of the transaction.
            Some(error) => self.result.and(Err(error)),
            None => self.result,
        };
        // OK to fail: the caller has gone away.
        let _ = reply_to(self.reply, result);
    }
}

fn reply_to<T>(
    reply: oneshot::Sender<Result<T>>,
    result: Result<T>,
) -> std::result::Result<(), ()> {
    reply.send(result).map_err(|_| ())
}

/// Starts the thread. It ends when the returned sender is dropped, after the jobs that wait.
pub fn start(
    conn: Connection,
    path: PathBuf,
    config: &Config,
    metrics: Arc<Metrics>,
    wal_pressure: WalPressure,
) -> Result<(Writer, Sender<()>, JoinHandle<()>)> {
    // Each stream has one job under way at the most.
    let (jobs, queued) = bounded(config.max_uploads + config.max_reconciles);
    let (stop, stopped) = bounded(0);
    let wal = Wal::new(&path, config, Arc::clone(&metrics), wal_pressure);
    let group_jobs = config.group_commit_jobs;
    let thread = Builder::new()
        .name("billstream-writer".to_owned())
        .spawn(move || WriterThread { conn, queued, stopped, group_jobs, metrics, wal }.run())
        .map_err(|e| Error::Unusable(format!("cannot start the writer's thread: {e}")))?;
    Ok((Writer { jobs }, stop, thread))
}

struct WriterThread {
    conn: Connection,
    queued: Receiver<Box<dyn Waiting>>,
    /// Disconnected when the thread is to stop.
    stopped: Receiver<()>,
    group_jobs: usize,
    metrics: Arc<Metrics>,
    wal: Wal,
}

/// How a transaction went.
enum Attempt {
    /// Committed; or rolled back with the one job in it.
    Done,
    /// A caller went away: once more without its job.
    CallerLeft,
    /// Once more, with a savepoint around each job.
    JobFailed,
}

impl WriterThread {
    fn run(mut self) {
        while let Some(first) = self.next() {
            let mut group = vec![first];
            group.extend(self.queued.try_iter().take(self.group_jobs - 1));
            self.commit(group);
            self.wal.limit(&self.conn);
        }
        self.wal.close(&self.conn);
    }

    /// The next job; `None` when the thread is to stop and none waits.
    fn next(&self) -> Option<Box<dyn Waiting>> {
        crossbeam_channel::select! {
            recv(self.queued) -> job => job.ok(),
            recv(self.stopped) -> _ => self.queued.try_recv().ok(),
        }
    }

    /// Runs and commits a group, and answers its callers.
    fn commit(&mut self, mut group: Vec<Box<dyn Waiting>>) {
        let mut savepoints = false;
        loop {
            group.retain(|job| !job.is_unwanted());
            match self.attempt(&mut group, savepoints) {
                Ok(Attempt::Done) => break,
                Ok(Attempt::CallerLeft) => {}
                Ok(Attempt::JobFailed) => savepoints = true,
                Err(error) => {
                    log::warn!("a commit of {} jobs failed: {error}", group.len());
                    self.roll_back();
                    group.into_iter().for_each(|job| job.finish(Some(error.clone())));
                    return;
                }
            }
        }
        self.metrics.commits.add(1);
        self.metrics.jobs_committed.add(group.len() as u64);
        group.into_iter().for_each(|job| job.finish(None));
    }

    /// One transaction, which is rolled back unless all is done.
    fn attempt(&self, group: &mut [Box<dyn Waiting>], savepoints: bool) -> Result<Attempt> {
        let is_alone = group.len() == 1;
        self.execute("BEGIN IMMEDIATE")?;
        let mut totals = Totals::default();
        for job in group.iter_mut() {
            if savepoints {
                totals.save_customers(&self.conn)?;
                self.execute("SAVEPOINT job")?;
            }
            let saved = savepoints.then(|| totals.clone());
            if !job.run(&self.conn, &mut totals) {
                if self.conn.is_autocommit() {
                    return Err(Error::Unavailable("SQLite gave up the transaction".to_owned()));
                }
                if !savepoints {
                    self.execute("ROLLBACK")?;
                    return Ok(if is_alone { Attempt::Done } else { Attempt::JobFailed });
                }
                self.execute("ROLLBACK TO job")?;
                totals = saved.unwrap_or_default();
            }
            if savepoints {
                self.execute("RELEASE job")?;
            }
        }
        // The last moment at which a cancelled upload can be kept out.
        if group.iter().any(|job| job.is_unwanted()) {
            self.execute("ROLLBACK")?;
            return Ok(Attempt::CallerLeft);
        }
        totals.save(&self.conn)?;
        self.execute("COMMIT")?;
        Ok(Attempt::Done)
    }

    fn execute(&self, statement: &str) -> Result<()> {
        self.conn.prepare_cached(statement)?.execute([])?;
        Ok(())
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit() {
            if let Err(error) = self.execute("ROLLBACK") {
                log::error!("a rollback failed: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CurrencyTotal, Filter, NewInvoice, Timestamp};
    use crate::stop::Stop;
    use crate::store::staged::Staged;
    use crate::store::{bulk, read, Store};
    use futures::executor::block_on;

    /// They are of one commit, and all invoices are of one customer.
    #[test]
    fn the_totals_are_those_of_the_jobs_that_did_not_fail() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let upload = |ids: &[&str]| {
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
            store.writer.submit(move |job| bulk::create(job, "", &mut staged)).unwrap()
        };
        let (go, gate) = bounded::<()>(0);
        let hold = move |_: Job<'_>| {
            // It ends when the other side is dropped.
            let _ = gate.recv();
            Ok(())
        };
        let held = store.writer.submit(hold).unwrap();
        let uploads = [upload(&["1", "2"]), upload(&["3", "3"]), upload(&["4"])];
        drop(go);
        block_on(held).unwrap().unwrap();
        let created = uploads.map(|upload| block_on(upload).unwrap().map(|created| created.count));
        assert_eq!(created[0], Ok(2));
        assert!(matches!(created[1], Err(Error::AlreadyExists(_))), "{created:?}");
        assert_eq!(created[2], Ok(1));
        for customer_id in ["", "c"] {
            let filter = Filter { customer_id: customer_id.to_owned(), ..Filter::ALL };
            let summary =
                store.reader.read(&Stop::default(), |conn| read::summary(conn, &filter)).unwrap();
            let currency = "EUR".to_owned();
            let (total_cents, paid_cents) = (15, 0);
            let total = CurrencyTotal { currency, invoice_count: 3, total_cents, paid_cents };
            assert_eq!(summary.totals, [total]);
        }
        thread.stop();
    }
}
