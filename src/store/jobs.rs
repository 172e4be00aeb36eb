//! The jobs of the writer, and the queue in which they wait.
//!
//! They wait in lanes, which take turns: payments, uploads that share a commit, uploads that are too
//! large for that, and trials, each alone. So a payment waits for one commit of each other lane at the most, and
//! the jobs of a commit are of one kind: nothing that happens to an upload makes a payment run again.
//!
//! A job has its place for as long as somebody waits for its [`Reply`].

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use futures::FutureExt;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::write::Transaction;

/// Which jobs share a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Payments,
    Uploads,
    /// Uploads of more rows than a commit of several jobs may have.
    LargeUploads,
    /// What is run to see what comes of it, and rolled back. A trial is alone in its transaction, so that there is
    /// nothing of others to be kept.
    Trials,
}

const LANES: usize = 4;

/// What the work of a job is given, in the transaction that is open.
pub struct Work<'a> {
    pub database: &'a mut dyn Transaction,
    /// Tells a long job whether its caller has gone away.
    pub is_unwanted: &'a dyn Fn() -> bool,
}

/// A job with its caller.
pub trait Job: Send {
    /// Runs the work, from its start each time, and keeps its result. Returns the error, if it failed.
    fn run(&mut self, database: &mut dyn Transaction) -> Result<()>;
    /// Whether the caller has gone away, and the job is not to be committed.
    fn is_unwanted(&self) -> bool;
    /// Whether it is rolled back, whatever came of it.
    fn is_trial(&self) -> bool;
    /// Answers the caller: with the result, or with the `error` for which it does not hold.
    fn finish(self: Box<Self>, error: Option<Error>);
}

/// A job in the queue, and in the hands of the writer.
pub struct Entry {
    /// The place in the order of arrival.
    ticket: u64,
    /// Invoices or events.
    rows: usize,
    pub job: Box<dyn Job>,
}

/// The queue. Never blocks the side that hands jobs over.
pub struct Queue {
    waiting: Mutex<Lanes>,
    /// Told when a job arrived or the queue was closed.
    changed: Condvar,
    capacity: usize,
    group_rows: usize,
    retry_delay: Duration,
}

/// What came of a wait for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    ForWork,
    /// Nothing came in the time.
    InVain,
    /// The queue is closed, and all jobs were taken.
    Closed,
}

struct Lanes {
    lanes: [VecDeque<Entry>; LANES],
    /// The lane whose turn it is.
    turn: usize,
    /// The ticket of the last job that arrived.
    newest: u64,
    is_closed: bool,
}

impl Lanes {
    fn jobs(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }
}

impl Queue {
    pub fn new(config: &Config) -> Queue {
        let lanes = std::array::from_fn(|_| VecDeque::new());
        Queue {
            waiting: Mutex::new(Lanes { lanes, turn: 0, newest: 0, is_closed: false }),
            changed: Condvar::new(),
            // Each stream that is open waits for one job at the most.
            capacity: config.max_uploads.saturating_add(config.max_reconciles),
            group_rows: config.group_commit_rows,
            retry_delay: Duration::from_millis(config.retry_delay_ms),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Lanes> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Jobs that wait, and how many may.
    pub fn waiting_jobs(&self) -> (usize, usize) {
        (self.waiting().jobs(), self.capacity)
    }

    /// The lane of an upload of `rows` invoices that is to be created.
    pub fn lane_of_upload(&self, rows: usize) -> Lane {
        if rows > self.group_rows {
            Lane::LargeUploads
        } else {
            Lane::Uploads
        }
    }

    /// Puts a job into its lane, and returns its ticket.
    pub fn push(&self, lane: Lane, rows: usize, job: Box<dyn Job>) -> Result<u64> {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return Err(Error::Unavailable("the server is shutting down".to_owned()));
        }
        let jobs = waiting.jobs();
        if jobs >= self.capacity {
            let message = format!("{jobs} uploads and batches of events wait to be written");
            return Err(Error::Exhausted { message, retry_after: Some(self.retry_delay) });
        }
        waiting.newest += 1;
        let ticket = waiting.newest;
        waiting.lanes[lane as usize].push_back(Entry { ticket, rows: rows.max(1), job });
        self.changed.notify_one();
        Ok(ticket)
    }

    /// Takes a job back that the writer has not taken.
    fn withdraw(&self, lane: Lane, ticket: u64) -> Option<Entry> {
        let lane = &mut self.waiting().lanes[lane as usize];
        let place = lane.binary_search_by_key(&ticket, |entry| entry.ticket).ok()?;
        lane.remove(place)
    }

    /// Waits for a job, as long as `idle`.
    pub fn wait(&self, idle: Duration) -> Waited {
        let mut waiting = self.waiting();
        loop {
            if waiting.lanes.iter().any(|lane| !lane.is_empty()) {
                return Waited::ForWork;
            }
            if waiting.is_closed {
                return Waited::Closed;
            }
            let waited = self.changed.wait_timeout(waiting, idle);
            let (again, timeout) = waited.unwrap_or_else(|e| e.into_inner());
            if timeout.timed_out() && again.lanes.iter().all(VecDeque::is_empty) {
                return Waited::InVain;
            }
            waiting = again;
        }
    }

    /// Takes the jobs of the next commit: of one lane, and of `group_commit_rows` at the most, or one job.
    pub fn take(&self) -> Vec<Entry> {
        let mut waiting = self.waiting();
        let turns = (waiting.turn..).map(|turn| turn % LANES).take(LANES);
        let Some(lane) = turns.into_iter().find(|lane| !waiting.lanes[*lane].is_empty()) else {
            return Vec::new();
        };
        waiting.turn = (lane + 1) % LANES;
        let (lane, mut rows) = (&mut waiting.lanes[lane], 0);
        let fits = |entry: &&Entry| {
            rows += entry.rows;
            rows <= self.group_rows && !entry.job.is_trial()
        };
        let jobs = lane.iter().take_while(fits).count();
        lane.drain(..jobs.max(1)).collect()
    }

    /// The ticket of the job that came last.
    pub fn newest(&self) -> u64 {
        self.waiting().newest
    }

    /// Takes the jobs of all lanes that came before or with the one of this ticket.
    pub fn take_until(&self, newest: u64) -> Vec<Entry> {
        let mut waiting = self.waiting();
        let of_lane = |lane: &mut VecDeque<Entry>| {
            let known = lane.partition_point(|entry| entry.ticket <= newest);
            lane.drain(..known).collect::<Vec<_>>()
        };
        waiting.lanes.iter_mut().flat_map(of_lane).collect()
    }

    /// Takes no more jobs; those that wait are still done.
    pub fn close(&self) {
        self.waiting().is_closed = true;
        self.changed.notify_one();
    }
}

/// What a job is to its caller: its result after the commit. Dropping it before that takes the job back,
/// if its transaction is not being committed already.
pub struct Reply<T> {
    result: oneshot::Receiver<Result<T>>,
    queue: Arc<Queue>,
    lane: Lane,
    ticket: u64,
}

impl<T> Reply<T> {
    /// Hands `job` over, which answers to `result`.
    pub fn to(
        queue: &Arc<Queue>,
        (lane, rows, job): (Lane, usize, Box<dyn Job>),
        result: oneshot::Receiver<Result<T>>,
    ) -> Result<Reply<T>> {
        let ticket = queue.push(lane, rows, job)?;
        Ok(Reply { result, queue: Arc::clone(queue), lane, ticket })
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let lost = |_| Err(Error::Internal("the writer ended without an answer".to_owned()));
        self.result.poll_unpin(cx).map(|result| result.unwrap_or_else(lost))
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        // Before the job is looked for: the writer may just have taken it.
        self.result.close();
        drop(self.queue.withdraw(self.lane, self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Job for Nothing {
        fn run(&mut self, _: &mut dyn Transaction) -> Result<()> {
            Ok(())
        }

        fn is_unwanted(&self) -> bool {
            false
        }

        fn is_trial(&self) -> bool {
            false
        }

        fn finish(self: Box<Self>, _: Option<Error>) {}
    }

    /// A queue whose commits have 10 rows at the most.
    fn queue() -> Queue {
        Queue::new(&Config { group_commit_rows: 10, ..Config::default() })
    }

    fn upload(queue: &Queue, rows: usize) -> u64 {
        queue.push(queue.lane_of_upload(rows), rows, Box::new(Nothing)).unwrap()
    }

    fn payment(queue: &Queue, events: usize) -> u64 {
        queue.push(Lane::Payments, events, Box::new(Nothing)).unwrap()
    }

    fn take(queue: &Queue) -> Vec<u64> {
        queue.take().iter().map(|entry| entry.ticket).collect()
    }

    #[test]
    fn a_commit_is_bounded_by_its_rows_and_a_large_upload_is_alone() {
        let queue = queue();
        let [a, b, c] = [6, 4, 1].map(|rows| upload(&queue, rows));
        let [d, e] = [11, 5_000].map(|rows| upload(&queue, rows));
        let f = upload(&queue, 0);
        assert_eq!(take(&queue), [a, b]);
        assert_eq!(take(&queue), [d]);
        assert_eq!(take(&queue), [c, f]);
        assert_eq!(take(&queue), [e]);
        assert!(take(&queue).is_empty());
    }

    #[test]
    fn a_payment_waits_for_one_commit_of_each_other_lane_at_the_most() {
        let queue = queue();
        let [a, b] = [300_000, 300_000].map(|rows| upload(&queue, rows));
        let [c, d] = [10, 10].map(|rows| upload(&queue, rows));
        let e = payment(&queue, 256);
        assert_eq!(take(&queue), [e]);
        let f = payment(&queue, 1);
        assert_eq!(take(&queue), [c]);
        assert_eq!(take(&queue), [a]);
        let g = payment(&queue, 1);
        assert_eq!(take(&queue), [f, g]);
        assert_eq!(take(&queue), [d]);
        assert_eq!(take(&queue), [b]);
    }

    #[test]
    fn what_is_taken_back_leaves_its_lane_and_what_came_later_stays() {
        let queue = queue();
        let [a, b, c] = [1, 1, 1].map(|rows| upload(&queue, rows));
        assert!(queue.withdraw(Lane::Uploads, b).is_some());
        assert!(queue.withdraw(Lane::Uploads, b).is_none());
        let newest = queue.newest();
        let d = payment(&queue, 1);
        let known: Vec<_> = queue.take_until(newest).iter().map(|entry| entry.ticket).collect();
        assert_eq!(known, [a, c]);
        assert_eq!(take(&queue), [d]);
    }
}
