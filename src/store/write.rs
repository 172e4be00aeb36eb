//! The one writer: a thread with the read-write connection, and group commit.
//!
//! It opens a transaction, takes the jobs at hand (see [`jobs`](crate::store::jobs)), runs each, commits
//! once, and only then answers each with its own result. A failed job rolls back alone; a failed
//! transaction fails them all, with its reason. An upload whose caller has gone away is not committed.
//!
//! Jobs run without savepoints at first: inside one, SQLite saves each page before it is changed. Only when
//! a job fails are the jobs of its transaction run again, each in its savepoint; and when a caller
//! left, each of the others in a transaction of its own. What may be run again is bounded by
//! `group_commit_rows`: a larger upload is alone in its transaction.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use futures::channel::oneshot;
use rusqlite::Connection;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::model::{Ack, Created, Event};
use crate::store::jobs::{Entry, Job, Lane, Queue, Reply, Waited, Work};
use crate::store::sqlite::totals::Totals;
use crate::store::sqlite::wal::Wal;
use crate::store::sqlite::{bulk, reconcile};
use crate::store::staged::Staged;

/// How long there is nothing to write until the log is copied into the database, and how often the file is
/// looked at meanwhile.
const IDLE: Duration = Duration::from_secs(1);

/// A handle to hand jobs to the writer. Its methods never block; the result comes after the commit, and
/// dropping the [`Reply`] before that takes the job back, if its transaction is not being committed already.
#[derive(Clone)]
pub struct Writer {
    queue: Arc<Queue>,
}

impl Writer {
    /// Creates the invoices of `staged`, all or none (see [`bulk::create`]).
    pub fn create(&self, batch_id: String, mut staged: Staged) -> Result<Reply<Created>> {
        let rows = staged.rows();
        let lane = self.queue.lane_of_upload(rows);
        self.submit(lane, rows, move |work| bulk::create(work, &batch_id, &mut staged))
    }

    /// Applies a batch of events, each once (see [`reconcile::apply`]).
    pub fn apply(&self, events: Vec<Event>) -> Result<Reply<Vec<Ack>>> {
        let rows = events.len();
        self.submit(Lane::Payments, rows, move |work| reconcile::apply(work, &events))
    }

    /// `work` may be run again, from the start.
    fn submit<T: Send + 'static>(
        &self,
        lane: Lane,
        rows: usize,
        work: impl FnMut(Work<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Reply<T>> {
        let (reply, result) = oneshot::channel();
        let job = Box::new(Task { work, result: None, reply, lane });
        Reply::to(&self.queue, (lane, rows, job), result)
    }
}

struct Task<T, F> {
    work: F,
    /// Of the last run.
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    lane: Lane,
}

impl<T: Send, F: FnMut(Work<'_>) -> Result<T> + Send> Job for Task<T, F> {
    fn run(&mut self, conn: &Connection, totals: &mut Totals) -> Result<()> {
        let Task { work, reply, .. } = self;
        let given = Work { conn, totals, is_unwanted: &|| reply.is_canceled() };
        let result = catch_unwind(AssertUnwindSafe(|| work(given)))
            .unwrap_or_else(|_| Err(Error::Internal("a job of the writer panicked".to_owned())));
        let failed = result.as_ref().err().cloned();
        self.result = Some(result);
        failed.map_or(Ok(()), Err)
    }

    /// A payment is applied whether somebody still waits for its acknowledgement or not.
    fn is_unwanted(&self) -> bool {
        self.lane != Lane::Payments && self.reply.is_canceled()
    }

    fn finish(self: Box<Self>, error: Option<Error>) {
        let Task { result, reply, .. } = *self;
        let did_not_run = || Err(Error::Internal("a job of the writer did not run".to_owned()));
        // OK to fail: the caller has gone away.
        drop(reply.send(error.map_or_else(|| result.unwrap_or_else(did_not_run), Err)));
    }
}

/// Closes the queue of the writer when it is dropped: the thread ends after the jobs that wait.
pub struct StopWriter(Arc<Queue>);

impl Drop for StopWriter {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Starts the thread. It keeps the highest committed sequence in `committed`.
pub fn start(
    conn: Connection,
    wal: Wal,
    config: &Config,
    metrics: Arc<Metrics>,
    committed: Arc<AtomicI64>,
) -> Result<(Writer, StopWriter, JoinHandle<()>)> {
    let queue = Arc::new(Queue::new(config));
    let thread = WriterThread { conn, queue: Arc::clone(&queue), metrics, committed, wal };
    let thread = Builder::new()
        .name("billstream-writer".to_owned())
        .spawn(move || thread.run())
        .map_err(|e| Error::Unusable(format!("cannot start the writer's thread: {e}")))?;
    Ok((Writer { queue: Arc::clone(&queue) }, StopWriter(queue), thread))
}

struct WriterThread {
    conn: Connection,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    /// The highest sequence that is committed.
    committed: Arc<AtomicI64>,
    wal: Wal,
}

/// How a transaction went that is over.
enum Attempt {
    Committed,
    /// Rolled back: a caller went away.
    CallerLeft,
    /// Rolled back: a job failed.
    JobFailed,
}

impl WriterThread {
    fn run(mut self) {
        loop {
            match self.queue.wait(IDLE) {
                Waited::ForWork => {
                    self.serve();
                    self.wal.limit(&self.conn);
                }
                Waited::InVain => self.wal.idle(&self.conn),
                Waited::Closed => break,
            }
        }
        self.wal.close(&self.conn);
    }

    /// One commit. The jobs are taken when the database is ours: until then they may leave.
    fn serve(&mut self) {
        let newest = self.queue.newest();
        match self.begin() {
            Ok(()) => self.commit(self.queue.take()),
            // Who came meanwhile has a wait of its own.
            Err(error) => self.answer(self.queue.take_until(newest), Err(error)),
        }
    }

    /// Runs and commits a group in the transaction that is open, and answers its callers.
    fn commit(&mut self, mut group: Vec<Entry>) {
        let mut result = self.attempt(&mut group, false);
        if matches!(result, Ok(Attempt::JobFailed)) && group.len() > 1 {
            result = self.begin().and_then(|()| self.attempt(&mut group, true));
        }
        match result {
            Ok(Attempt::CallerLeft) => self.commit_each(group),
            Ok(_) => self.answer(group, Ok(())),
            Err(error) => self.answer(group, Err(error)),
        }
    }

    /// Each job in its transaction, so that none runs again because another's caller leaves.
    fn commit_each(&mut self, group: Vec<Entry>) {
        let mut begun = Ok(());
        for entry in group.into_iter().filter(|entry| !entry.job.is_unwanted()) {
            // Waiting for the lock once is enough.
            begun = begun.and_then(|()| self.begin());
            match &begun {
                Ok(()) => self.commit(vec![entry]),
                Err(error) => self.answer(vec![entry], Err(error.clone())),
            }
        }
    }

    fn answer(&mut self, group: Vec<Entry>, result: Result<()>) {
        if let Err(error) = &result {
            log::warn!("a transaction of {} jobs failed: {error}", group.len());
            self.wal.note(error);
        }
        group.into_iter().for_each(|entry| entry.job.finish(result.clone().err()));
    }

    /// Runs the jobs in the transaction that is open, and ends it. Jobs that nobody wants leave the group.
    fn attempt(&mut self, group: &mut Vec<Entry>, savepoints: bool) -> Result<Attempt> {
        let attempt = self.run_all(group, savepoints);
        match attempt {
            Ok(Attempt::Committed) => {
                self.metrics.commits.add(1);
                self.metrics.jobs_committed.add(group.len() as u64);
            }
            _ if self.conn.is_autocommit() => {}
            _ => {
                self.wal.rolling_back();
                self.roll_back();
            }
        }
        attempt
    }

    fn run_all(&mut self, group: &mut Vec<Entry>, savepoints: bool) -> Result<Attempt> {
        group.retain(|entry| !entry.job.is_unwanted());
        let mut totals = Totals::default();
        for entry in group.iter_mut() {
            if let Some(end) = self.run_one(&mut *entry.job, &mut totals, savepoints)? {
                return Ok(end);
            }
        }
        // The last moment at which a cancelled upload can be kept out.
        if group.is_empty() || group.iter().any(|entry| entry.job.is_unwanted()) {
            return Ok(Attempt::CallerLeft);
        }
        totals.save(&self.conn)?;
        self.execute("COMMIT")?;
        // Before any caller has its answer.
        if let Some(last) = totals.last_sequence() {
            self.committed.store(last, Ordering::Release);
        }
        self.wal.committed(&self.conn)?;
        Ok(Attempt::Committed)
    }

    /// Runs a job; `Some` where the transaction cannot go on after it.
    fn run_one(
        &mut self,
        job: &mut dyn Job,
        totals: &mut Totals,
        savepoints: bool,
    ) -> Result<Option<Attempt>> {
        if savepoints {
            totals.save_customers(&self.conn)?;
            self.execute("SAVEPOINT job")?;
        }
        let saved = savepoints.then(|| totals.clone());
        if let Err(error) = job.run(&self.conn, totals) {
            self.wal.note(&error);
            if self.conn.is_autocommit() {
                // SQLite gave the transaction up, with what the other jobs did in it.
                return Err(error);
            }
            if job.is_unwanted() {
                return Ok(Some(Attempt::CallerLeft));
            }
            let Some(saved) = saved else { return Ok(Some(Attempt::JobFailed)) };
            self.execute("ROLLBACK TO job")?;
            *totals = saved;
        }
        if savepoints {
            self.execute("RELEASE job")?;
        }
        Ok(None)
    }

    fn begin(&mut self) -> Result<()> {
        // There is none, unless its rollback failed.
        self.roll_back();
        self.execute("BEGIN IMMEDIATE")?;
        let begun = self.wal.begun(&self.conn);
        if begun.is_err() {
            self.roll_back();
        }
        begun
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit() {
            if let Err(error) = self.execute("ROLLBACK") {
                log::error!("a rollback failed: {error}");
            }
        }
    }

    fn execute(&self, statement: &str) -> Result<()> {
        self.conn.prepare_cached(statement)?.execute([])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
