//! The one writer: a thread with the connection that writes, and group commit.
//!
//! It opens a transaction, takes the jobs at hand (see [`jobs`](crate::store::jobs)), runs each, commits
//! once, and only then answers each with its own result. A failed job rolls back alone; a failed
//! transaction fails them all, with its reason. An upload whose caller has gone away is not committed.
//!
//! Jobs run without savepoints at first: inside one, a database saves what is changed. Only when
//! a job fails are the jobs of its transaction run again, each in its savepoint; and when a caller
//! left, each of the others in a transaction of its own. What may be run again is bounded by
//! `group_commit_rows`: a larger upload is alone in its transaction.
//!
//! A trial is a job like the others, whose transaction ends in a rollback: its answer is what it would have been.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::model::{Ack, Created, Event};
use crate::store::jobs::{Entry, Job, Lane, Queue, Reply, Waited, Work};
use crate::store::staged::Staged;

/// How long there is nothing to write until the log is copied into the database, and how often the file is
/// looked at meanwhile.
const IDLE: Duration = Duration::from_secs(1);

/// The connection that writes. It has one transaction at a time, and in it one savepoint.
pub trait Transaction: Send {
    /// Begins one; what was left of another is rolled back.
    fn begin(&mut self) -> Result<()>;
    /// Commits it, durably. Where this fails it may be gone, or be there still.
    fn commit(&mut self) -> Result<()>;
    /// Rolls it back, if there is one.
    fn roll_back(&mut self);
    /// Whether there is one: some errors end it.
    fn is_open(&self) -> bool;

    fn savepoint(&mut self) -> Result<()>;
    fn release(&mut self) -> Result<()>;
    /// Takes back what was done since the savepoint, and ends it.
    fn rollback_to(&mut self) -> Result<()>;

    /// Creates the invoices of `staged`. With a `batch_id` (not empty) under which the same invoices were
    /// created before, gives their result instead; under which others were, [`Error::Aborted`]. It ends with
    /// [`Error::Cancelled`] soon after `is_unwanted`.
    fn create(
        &mut self,
        batch_id: &str,
        staged: &mut Staged,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<Created>;
    /// Applies `events` in their order, each once, and returns an acknowledgement for each.
    fn apply(&mut self, events: &[Event]) -> Result<Vec<Ack>>;

    /// Hears every error of a transaction.
    fn note(&mut self, error: &Error);
    /// Has time between two transactions: to be called after each.
    fn rest(&mut self);
    /// The same, about once a second, while there is nothing to write.
    fn idle(&mut self);
    /// To be called at the end.
    fn close(&mut self);
}

/// A handle to hand jobs to the writer. Its methods never block; the result comes after the commit, and
/// dropping the [`Reply`] before that takes the job back, if its transaction is not being committed already.
#[derive(Clone)]
pub struct Writer {
    queue: Arc<Queue>,
}

impl Writer {
    /// The writer of a database that is yet to be started: what is handed over waits.
    pub fn new(config: &Config) -> Writer {
        Writer { queue: Arc::new(Queue::new(config)) }
    }

    /// Jobs that wait, and how many may.
    pub fn waiting_jobs(&self) -> (usize, usize) {
        self.queue.waiting_jobs()
    }

    /// Starts the thread.
    pub fn start(
        &self,
        database: impl Transaction + 'static,
        metrics: Arc<Metrics>,
    ) -> Result<(StopWriter, JoinHandle<()>)> {
        let thread = WriterThread { database, queue: Arc::clone(&self.queue), metrics };
        let thread = Builder::new()
            .name("billstream-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(|e| Error::Unusable(format!("cannot start the writer's thread: {e}")))?;
        Ok((StopWriter(Arc::clone(&self.queue)), thread))
    }

    /// Creates the invoices of `staged`, all or none (see [`Transaction::create`]); as a trial it only says what
    /// would come of it.
    pub fn create(
        &self,
        batch_id: String,
        mut staged: Staged,
        is_trial: bool,
    ) -> Result<Reply<Created>> {
        let rows = staged.rows();
        let lane = if is_trial { Lane::Trials } else { self.queue.lane_of_upload(rows) };
        self.submit(lane, rows, move |Work { database, is_unwanted }| {
            database.create(&batch_id, &mut staged, is_unwanted)
        })
    }

    /// Applies a batch of events, each once (see [`Transaction::apply`]); as a trial it only says what would come of
    /// each.
    pub fn apply(&self, events: Arc<Vec<Event>>, is_trial: bool) -> Result<Reply<Vec<Ack>>> {
        let rows = events.len();
        let lane = if is_trial { Lane::Trials } else { Lane::Payments };
        self.submit(lane, rows, move |work| work.database.apply(&events))
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
    fn run(&mut self, database: &mut dyn Transaction) -> Result<()> {
        let Task { work, reply, .. } = self;
        let given = Work { database, is_unwanted: &|| reply.is_canceled() };
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

    fn is_trial(&self) -> bool {
        self.lane == Lane::Trials
    }

    fn finish(self: Box<Self>, error: Option<Error>) {
        let Task { work, result, reply, .. } = *self;
        // First, so that the caller has what it lent to it for itself.
        drop(work);
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

struct WriterThread<T> {
    database: T,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

/// How a transaction went that is over.
enum Attempt {
    Committed,
    /// Rolled back, as it was to be: it was a trial.
    Tried,
    /// Rolled back: a caller went away.
    CallerLeft,
    /// Rolled back: a job failed.
    JobFailed,
}

impl<T: Transaction> WriterThread<T> {
    fn run(mut self) {
        loop {
            match self.queue.wait(IDLE) {
                Waited::ForWork => {
                    self.serve();
                    self.database.rest();
                }
                Waited::InVain => self.database.idle(),
                Waited::Closed => break,
            }
        }
        self.database.close();
    }

    /// One commit. The jobs are taken when the database is ours: until then they may leave.
    fn serve(&mut self) {
        let newest = self.queue.newest();
        match self.database.begin() {
            Ok(()) => self.commit(self.queue.take()),
            // Who came meanwhile has a wait of its own.
            Err(error) => self.answer(self.queue.take_until(newest), Err(error)),
        }
    }

    /// Runs and commits a group in the transaction that is open, and answers its callers.
    fn commit(&mut self, mut group: Vec<Entry>) {
        let mut result = self.attempt(&mut group, false);
        if matches!(result, Ok(Attempt::JobFailed)) && group.len() > 1 {
            result = self.database.begin().and_then(|()| self.attempt(&mut group, true));
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
            begun = begun.and_then(|()| self.database.begin());
            match &begun {
                Ok(()) => self.commit(vec![entry]),
                Err(error) => self.answer(vec![entry], Err(error.clone())),
            }
        }
    }

    fn answer(&mut self, group: Vec<Entry>, result: Result<()>) {
        if let Err(error) = &result {
            self.metrics.commits_failed.add(1);
            log::warn!("a transaction of {} jobs failed: {error}", group.len());
            self.database.note(error);
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
                self.metrics.commit_jobs.record(group.len() as u64);
            }
            _ => self.database.roll_back(),
        }
        attempt
    }

    fn run_all(&mut self, group: &mut Vec<Entry>, savepoints: bool) -> Result<Attempt> {
        group.retain(|entry| !entry.job.is_unwanted());
        for entry in group.iter_mut() {
            if let Some(end) = self.run_one(&mut *entry.job, savepoints)? {
                return Ok(end);
            }
        }
        // The last moment at which a cancelled upload can be kept out.
        if group.is_empty() || group.iter().any(|entry| entry.job.is_unwanted()) {
            return Ok(Attempt::CallerLeft);
        }
        if group.iter().any(|entry| entry.job.is_trial()) {
            return Ok(Attempt::Tried);
        }
        let start = Instant::now();
        self.database.commit()?;
        let took = start.elapsed().as_nanos() as u64;
        self.metrics.commit_duration_seconds.record(took);
        Ok(Attempt::Committed)
    }

    /// Runs a job; `Some` where the transaction cannot go on after it.
    fn run_one(&mut self, job: &mut dyn Job, savepoints: bool) -> Result<Option<Attempt>> {
        if savepoints {
            self.database.savepoint()?;
        }
        let Err(error) = job.run(&mut self.database) else {
            return if savepoints { self.database.release().map(|()| None) } else { Ok(None) };
        };
        self.database.note(&error);
        if !self.database.is_open() {
            // It was given up, with what the other jobs did in it.
            return Err(error);
        }
        if job.is_unwanted() {
            return Ok(Some(Attempt::CallerLeft));
        }
        if !savepoints {
            return Ok(Some(Attempt::JobFailed));
        }
        self.database.rollback_to()?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
