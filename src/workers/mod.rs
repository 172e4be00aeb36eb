//! A fixed number of threads that run jobs, which wait in a bounded queue for their turns.

mod turns;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{bounded, Receiver};

use crate::error::{Error, Result};
use crate::peer::{Full, Peer, Share};
use turns::{Next, Turns};

type Job = Box<dyn FnOnce() + Send>;

/// A handle to hand jobs to the threads of a [`Workers`].
#[derive(Clone)]
pub struct Queue(Arc<Pool>);

/// How much there is to do, of what can be.
pub struct Load {
    /// Jobs that wait.
    pub queued: usize,
    /// The most that may wait.
    pub capacity: usize,
    /// Threads that run a job.
    pub busy: usize,
    pub threads: usize,
}

/// Why a job was not taken. It was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room for it.
    Full(Full),
    /// The threads have been told to stop.
    Stopped,
}

/// The place of a job. Dropping it takes the job out, and drops the job, if no thread has begun it.
pub struct Ticket {
    pool: Arc<Pool>,
    peer: Peer,
    id: u64,
}

impl Ticket {
    fn take_out(&self) -> Option<Job> {
        let mut state = self.pool.lock();
        let job = state.turns.remove(&self.peer, self.id);
        self.pool.has_changed(&state);
        job
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Most have been begun, and where nothing waits that costs no lock.
        if self.pool.waiting.load(Ordering::Relaxed) > 0 {
            // The job is dropped after the lock: it may do anything then.
            drop(self.take_out());
        }
    }
}

impl Queue {
    /// Hands over a job of `peer`, or drops it when there is no room. Never blocks.
    pub fn submit(
        &self,
        peer: &Peer,
        job: impl FnOnce() + Send + 'static,
    ) -> std::result::Result<Ticket, Refused> {
        self.push(peer, false, Box::new(job))
    }

    /// The same for a job that may take long: a host may have its share of the threads for those.
    pub fn submit_long(
        &self,
        peer: &Peer,
        job: impl FnOnce() + Send + 'static,
    ) -> std::result::Result<Ticket, Refused> {
        self.push(peer, true, Box::new(job))
    }

    fn push(&self, peer: &Peer, is_long: bool, job: Job) -> std::result::Result<Ticket, Refused> {
        let mut state = self.0.lock();
        if state.is_stopped {
            return Err(Refused::Stopped);
        }
        let id = state.turns.push(peer, is_long, job).map_err(Refused::Full)?;
        self.0.has_changed(&state);
        let is_any_asleep = state.asleep > 0;
        drop(state);
        if is_any_asleep {
            self.0.work.notify_one();
        }
        Ok(Ticket { pool: Arc::clone(&self.0), peer: peer.clone(), id })
    }

    /// How much there is to do.
    pub fn load(&self) -> Load {
        let state = self.0.lock();
        let (queued, capacity) = (state.turns.waiting(), state.turns.capacity());
        Load { queued, capacity, busy: state.busy, threads: state.threads }
    }

    /// Whether a job waits for a thread. Cheap.
    pub fn has_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Has an idle thread run `job` of `peer` while the caller does something else; `None`, with the
    /// job dropped, where none is idle.
    pub fn fork<T: Send + 'static>(
        &self,
        peer: &Peer,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Fork<T>> {
        if !self.0.lock().has_idle() {
            return None;
        }
        let (reply, result) = bounded(1);
        let run = move || {
            // OK to fail: the caller does not want it any more.
            let _ = reply.send(job());
        };
        self.submit(peer, run).ok().map(|ticket| Fork { ticket, result })
    }
}

/// A job that another thread runs, or will run. Dropping it takes the job out.
pub struct Fork<T> {
    ticket: Ticket,
    result: Receiver<T>,
}

impl<T> Fork<T> {
    /// The result of the job, which is run here if no thread has begun it: another job was quicker.
    pub fn finish(self) -> Result<T> {
        if let Some(job) = self.ticket.take_out() {
            job();
        }
        self.result.recv().map_err(|_| Error::Internal("a forked job panicked".to_owned()))
    }
}

/// What the threads and the handles share.
struct Pool {
    state: Mutex<State>,
    /// A job came, or the threads are to stop.
    work: Condvar,
    /// Jobs that wait, for who only looks.
    waiting: AtomicUsize,
}

struct State {
    turns: Turns<Job>,
    threads: usize,
    /// Threads that run a job.
    busy: usize,
    /// Threads that wait to be told of a job.
    asleep: usize,
    is_stopped: bool,
}

impl State {
    /// Whether there are more threads without a job than jobs that wait.
    fn has_idle(&self) -> bool {
        self.threads - self.busy > self.turns.waiting()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn has_changed(&self, state: &State) {
        self.waiting.store(state.turns.waiting(), Ordering::Relaxed);
    }

    /// Puts away the last job and waits for the next one; `None` when the thread is to stop.
    fn next(&self, done: Option<Done>) -> Option<Next<Job>> {
        let mut state = self.lock();
        if let Some(Done { long }) = done {
            state.busy -= 1;
            // Where that lets a long job of this host run, this thread finds it.
            long.iter().for_each(|host| state.turns.end_long(host));
        }
        loop {
            if state.is_stopped {
                return None;
            }
            if let Some(next) = state.turns.next() {
                state.busy += 1;
                self.has_changed(&state);
                return Some(next);
            }
            state.asleep += 1;
            state = self.work.wait(state).unwrap_or_else(|e| e.into_inner());
            state.asleep -= 1;
        }
    }
}

/// A job that has run.
struct Done {
    /// The host of a long one.
    long: Option<Arc<str>>,
}

/// The threads. They go on until this is stopped or dropped.
pub struct Workers {
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` threads named `name-0` and so on, with a queue of `capacity` jobs of which a
    /// peer may take its share. A host may have its share of the threads, but one of them at least, for
    /// long jobs.
    pub fn start(name: &str, threads: usize, capacity: usize, share: Share) -> Result<Workers> {
        let turns = Turns::new(threads, capacity, share);
        let state = State { turns, threads, busy: 0, asleep: 0, is_stopped: false };
        let (state, waiting) = (Mutex::new(state), AtomicUsize::new(0));
        let pool = Arc::new(Pool { state, work: Condvar::new(), waiting });
        let mut workers = Workers { queue: Queue(Arc::clone(&pool)), threads: Vec::new() };
        for i in 0..threads {
            let (pool, thread) = (Arc::clone(&pool), Builder::new().name(format!("{name}-{i}")));
            let thread = thread.spawn(move || run(&pool));
            workers.threads.push(
                thread.map_err(|e| {
                    Error::Unusable(format!("cannot start the {name} threads: {e}"))
                })?,
            );
        }
        Ok(workers)
    }

    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Waits for the jobs under way and drops those that still wait.
    pub fn stop(self) {}
}

impl Drop for Workers {
    fn drop(&mut self) {
        let pool = &self.queue.0;
        let mut state = pool.lock();
        state.is_stopped = true;
        let waiting = state.turns.clear();
        pool.has_changed(&state);
        drop(state);
        pool.work.notify_all();
        drop(waiting);
        for thread in self.threads.drain(..) {
            // OK because `run` catches the panics of jobs.
            thread.join().expect("a worker thread does not panic");
        }
    }
}

/// Jobs between two moments at which a thread lets another one have the core, if one waits: what the
/// jobs made would otherwise wait for the scheduler's slices, of milliseconds. (`load ADDR list 10` of
/// benches/compare: a p99 of 1.7 ms with it, 2.1 ms without; after every job 1.3 ms, and a quarter less of
/// the pages a second of 100 callers.)
const JOBS_A_YIELD: usize = 4;

fn run(pool: &Pool) {
    let mut done = None;
    for jobs in 1.. {
        let Some(Next { job, long }) = pool.next(done) else { return };
        run_job(job);
        done = Some(Done { long });
        if jobs % JOBS_A_YIELD == 0 {
            std::thread::yield_now();
        }
    }
}

/// A job that panics fails alone: what it owned is dropped, and its waiting caller sees that.
fn run_job(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        log::error!("a job panicked on {:?}", std::thread::current().name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new("ipv4:127.0.0.1:1")
    }

    fn start(capacity: usize) -> Workers {
        Workers::start("test", 1, capacity, Share::ALL).unwrap()
    }

    /// A job that runs until it is dropped.
    struct Held {
        _gate: crossbeam_channel::Sender<()>,
        _ticket: Ticket,
    }

    /// Has the only thread run a job that is held.
    fn hold(queue: &Queue) -> Held {
        let (gate, closed) = bounded::<()>(0);
        let (started, has_started) = bounded(1);
        let job = move || {
            started.send(()).unwrap();
            let _ = closed.recv();
        };
        let ticket = queue.submit(&peer(), job).unwrap();
        has_started.recv().unwrap();
        Held { _gate: gate, _ticket: ticket }
    }

    #[test]
    fn a_full_queue_refuses_at_once_until_a_job_leaves() {
        let workers = start(1);
        let queue = workers.queue();
        let held = hold(&queue);
        assert!(!queue.has_waiting());
        let waits = queue.submit(&peer(), || ()).unwrap();
        assert!(queue.has_waiting());
        assert_eq!(queue.submit(&peer(), || ()).err(), Some(Refused::Full(Full::All)));
        drop(waits);
        assert!(!queue.has_waiting());
        let _waits = queue.submit(&peer(), || ()).unwrap();
        drop(held);
        workers.stop();
    }

    #[test]
    fn a_ticket_takes_its_job_out_and_drops_it() {
        let workers = start(4);
        let queue = workers.queue();
        let held = hold(&queue);
        let (owned, dropped) = bounded::<()>(0);
        let ticket = queue.submit(&peer(), move || owned.send(()).unwrap()).unwrap();
        drop(ticket);
        assert!(dropped.recv().is_err());
        drop(held);
        workers.stop();
    }

    #[test]
    fn a_panic_leaves_the_thread_at_work() {
        let workers = start(4);
        let (done, is_done) = bounded(1);
        let _panics = workers.queue().submit(&peer(), || panic!("on purpose")).unwrap();
        let _works = workers.queue().submit(&peer(), move || done.send(()).unwrap()).unwrap();
        is_done.recv().unwrap();
        workers.stop();
    }

    #[test]
    fn a_fork_runs_on_an_idle_thread_or_when_it_is_waited_for() {
        let workers = start(4);
        let queue = workers.queue();
        let here = || std::thread::current().id();
        let (started, has_started) = bounded(1);
        let begun = queue.fork(&peer(), move || {
            started.send(()).unwrap();
            here()
        });
        has_started.recv().unwrap();
        assert_ne!(begun.unwrap().finish().unwrap(), here());
        eventually_idle(&queue);

        // Two jobs for one idle thread, which is held by the first of them.
        let held = hold(&queue);
        assert!(queue.fork(&peer(), here).is_none());
        queue.0.lock().threads = 2;
        assert_eq!(queue.fork(&peer(), here).unwrap().finish().unwrap(), here());
        drop(held);
        workers.stop();
    }

    /// Waits until the thread has put away its last job.
    fn eventually_idle(queue: &Queue) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while queue.0.lock().busy > 0 {
            assert!(std::time::Instant::now() < deadline, "the thread stays busy");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_fork_that_panics_is_an_error() {
        let workers = start(4);
        let (started, has_started) = bounded::<()>(0);
        let job = move || {
            started.send(()).unwrap();
            panic!("on purpose")
        };
        let fork = workers.queue().fork::<()>(&peer(), job).unwrap();
        has_started.recv().unwrap();
        assert!(matches!(fork.finish(), Err(Error::Internal(_))));
        workers.stop();
    }

    #[test]
    fn stop_drops_the_jobs_that_wait_and_refuses_more() {
        let workers = start(4);
        let queue = workers.queue();
        let held = hold(&queue);
        let (owned, dropped) = bounded::<()>(0);
        let _waits = queue.submit(&peer(), move || drop(owned)).unwrap();
        let stopper = std::thread::spawn(move || workers.stop());
        assert!(dropped.recv().is_err());
        assert_eq!(queue.submit(&peer(), || ()).err(), Some(Refused::Stopped));
        drop(held);
        stopper.join().unwrap();
    }
}
