//! A fixed number of threads that run jobs from one bounded queue.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
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

    /// Whether a thread would take a job at once, if no other took it first.
    pub fn has_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > self.jobs.len()
    }
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

fn run(queued: &Receiver<Job>, stopped: &Receiver<()>, idle: &AtomicUsize) {
    loop {
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
        assert!(!queue.has_waiting() && !queue.has_idle());
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
