//! A fixed number of threads that run jobs from one bounded queue.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{bounded, Receiver, Sender};

use crate::error::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// A handle to hand jobs to the threads of a [`Workers`].
#[derive(Clone)]
pub struct Queue {
    jobs: Sender<Job>,
    /// Threads that have no job.
    idle: Arc<AtomicUsize>,
}

/// The queue has its limit of jobs, or its threads have been told to stop: the job was dropped.
#[derive(Debug)]
pub struct Full;

impl Queue {
    /// Hands over a job, or drops it when the queue is full. Never blocks.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> std::result::Result<(), Full> {
        self.jobs.try_send(Box::new(job)).map_err(|_| Full)
    }

    /// Whether a job waits for a thread.
    pub fn has_waiting(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether a job handed over now would be dropped.
    pub fn is_full(&self) -> bool {
        self.jobs.is_full()
    }

    /// Has an idle thread run `job` while the caller does something else; `None`, with the job
    /// dropped, where none is idle.
    pub fn fork<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Fork<T>> {
        if self.idle.load(Ordering::Relaxed) <= self.jobs.len() {
            return None;
        }
        let (reply, result) = bounded(1);
        let job: Forked<T> = Box::new(job);
        let job = Arc::new(Mutex::new(Some(job)));
        let fork = Fork { job: Arc::clone(&job), result };
        let run = move || {
            if let Some(job) = take(&job) {
                // OK to fail: the caller does not want it any more.
                let _ = reply.send(job());
            }
        };
        self.submit(run).ok().map(|()| fork)
    }
}

type Forked<T> = Box<dyn FnOnce() -> T + Send>;

/// A job that another thread runs, or will run.
pub struct Fork<T> {
    /// Until it is begun.
    job: Arc<Mutex<Option<Forked<T>>>>,
    result: Receiver<T>,
}

impl<T> Fork<T> {
    /// The result of the job, which is run here if no thread has begun it: another job was quicker.
    pub fn finish(self) -> Result<T> {
        match take(&self.job) {
            Some(job) => Ok(job()),
            None => {
                self.result.recv().map_err(|_| Error::Internal("a forked job panicked".to_owned()))
            }
        }
    }
}

fn take<T>(job: &Mutex<Option<T>>) -> Option<T> {
    job.lock().unwrap_or_else(|e| e.into_inner()).take()
}

/// The threads. They stop when this is stopped, or with the last [`Queue`].
pub struct Workers {
    queue: Queue,
    stop: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` threads named `name-0` and so on, with a queue of `capacity` jobs.
    pub fn start(name: &str, threads: usize, capacity: usize) -> Result<Workers> {
        let (jobs, queued) = bounded::<Job>(capacity);
        let (stop, stopped) = bounded::<()>(0);
        let idle = Arc::new(AtomicUsize::new(threads));
        let start_one = |i| {
            let (queued, stopped, idle) = (queued.clone(), stopped.clone(), Arc::clone(&idle));
            let thread = Builder::new().name(format!("{name}-{i}"));
            thread.spawn(move || run(&queued, &stopped, &idle))
        };
        let threads = (0..threads)
            .map(start_one)
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|e| Error::Unusable(format!("cannot start the {name} threads: {e}")))?;
        Ok(Workers { queue: Queue { jobs, idle }, stop, threads })
    }

    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Waits for the jobs under way and drops those that still wait.
    pub fn stop(self) {
        let Workers { queue, stop, threads } = self;
        drop((queue, stop));
        for thread in threads {
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

fn run(queued: &Receiver<Job>, stopped: &Receiver<()>, idle: &AtomicUsize) {
    for jobs in 1.. {
        if jobs % JOBS_A_YIELD == 0 {
            std::thread::yield_now();
        }
        // Looked at first, because `select!` picks any of the arms that are ready.
        if stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected) {
            return;
        }
        crossbeam_channel::select! {
            recv(stopped) -> _ => return,
            recv(queued) -> job => match job {
                Ok(job) => {
                    idle.fetch_sub(1, Ordering::Relaxed);
                    run_job(job);
                    idle.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => return,
            },
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

    #[test]
    fn a_full_queue_refuses_at_once() {
        let workers = Workers::start("test", 1, 1).unwrap();
        let queue = workers.queue();
        let (gate, closed) = bounded::<()>(0);
        let (started, has_started) = bounded(1);
        queue
            .submit(move || {
                started.send(()).unwrap();
                let _ = closed.recv();
            })
            .unwrap();
        has_started.recv().unwrap();
        assert!(!queue.has_waiting());
        queue.submit(|| ()).unwrap();
        assert!(queue.has_waiting());
        assert!(queue.submit(|| ()).is_err());
        drop(gate);
        workers.stop();
    }

    #[test]
    fn a_panic_leaves_the_thread_at_work() {
        let workers = Workers::start("test", 1, 4).unwrap();
        let (done, is_done) = bounded(1);
        workers.queue().submit(|| panic!("on purpose")).unwrap();
        workers.queue().submit(move || done.send(()).unwrap()).unwrap();
        is_done.recv().unwrap();
        workers.stop();
    }

    #[test]
    fn a_fork_runs_on_an_idle_thread_or_when_it_is_waited_for() {
        let workers = Workers::start("test", 1, 4).unwrap();
        let queue = workers.queue();
        let here = || std::thread::current().id();
        let (started, has_started) = bounded(1);
        let begun = queue.fork(move || {
            started.send(()).unwrap();
            here()
        });
        has_started.recv().unwrap();
        assert_ne!(begun.unwrap().finish().unwrap(), here());
        eventually_idle(&queue);

        // Two jobs for one idle thread, which is held by the first of them.
        let (gate, closed) = bounded::<()>(0);
        let (started, has_started) = bounded(1);
        let hold = move || {
            started.send(()).unwrap();
            let _ = closed.recv();
        };
        queue.submit(hold).unwrap();
        has_started.recv().unwrap();
        assert!(queue.fork(here).is_none());
        queue.idle.store(1, Ordering::Relaxed);
        assert_eq!(queue.fork(here).unwrap().finish().unwrap(), here());
        drop(gate);
        workers.stop();
    }

    /// Waits until the thread has put away its last job.
    fn eventually_idle(queue: &Queue) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while queue.idle.load(Ordering::Relaxed) == 0 {
            assert!(std::time::Instant::now() < deadline, "the thread stays busy");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_fork_that_panics_is_an_error() {
        let workers = Workers::start("test", 1, 4).unwrap();
        let (started, has_started) = bounded::<()>(0);
        let job = move || {
            started.send(()).unwrap();
            panic!("on purpose")
        };
        let fork = workers.queue().fork::<()>(job).unwrap();
        has_started.recv().unwrap();
        assert!(matches!(fork.finish(), Err(Error::Internal(_))));
        workers.stop();
    }

    #[test]
    fn stop_drops_the_jobs_that_wait() {
        let workers = Workers::start("test", 1, 4).unwrap();
        let (gate, closed) = bounded::<()>(0);
        let (started, has_started) = bounded(1);
        let (owned, dropped) = bounded::<()>(0);
        let job = move || {
            started.send(()).unwrap();
            let _ = closed.recv();
        };
        workers.queue().submit(job).unwrap();
        has_started.recv().unwrap();
        workers.queue().submit(move || drop(owned)).unwrap();
        let stopper = std::thread::spawn(move || workers.stop());
        drop(gate);
        stopper.join().unwrap();
        assert!(dropped.recv().is_err());
    }
}
