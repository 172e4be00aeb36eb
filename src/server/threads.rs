//! The threads of gRPC that a server runs on.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use futures::channel::oneshot;
use futures::future::{join_all, select};
use futures_timer::Delay;
use grpcio::{EnvBuilder, Environment};

use crate::bridge::wait;
use crate::grpc::poller::spawn_on_next_thread;

/// How long a thread may take to come to the [`Hold`]: longer than any handler of ours, and a stop goes on
/// without one of an embedder's that takes longer.
const HOLD_TIMEOUT: Duration = Duration::from_secs(1);

/// The threads of gRPC.
pub struct Environments {
    /// Those that serve calls: ours, or the embedder's.
    pub env: Arc<Environment>,
    /// The one of `grpc::poller`.
    pub poller_env: Arc<Environment>,
    /// Disconnected when the last of ours has ended: grpcio does not join them.
    threads_ended: Receiver<()>,
}

impl Environments {
    /// Starts `cq_threads` threads to serve calls, unless there are `given` ones.
    pub fn start(cq_threads: usize, given: Option<Arc<Environment>>) -> Environments {
        let (alive, threads_ended) = bounded::<()>(0);
        // Each thread takes one clone with it. Held here they would outlive the threads.
        let ours = if given.is_some() { 1 } else { cq_threads + 1 };
        let clones: Vec<Option<Sender<()>>> = vec![Some(alive); ours];
        let clones = Arc::new(Mutex::new(clones));
        let start = |name: &str, threads| {
            let clones = Arc::clone(&clones);
            let env =
                EnvBuilder::new().cq_count(threads).name_prefix(name).before_stop(move || {
                    drop(clones.lock().unwrap_or_else(|e| e.into_inner()).pop());
                });
            Arc::new(env.build())
        };
        let env = given.unwrap_or_else(|| start("billstream-cq", cq_threads));
        Environments { env, poller_env: start("billstream-poll", 1), threads_ended }
    }

    /// Whether all threads of ours have ended in time.
    pub fn stop(self, timeout: Duration) -> bool {
        drop((self.env, self.poller_env));
        self.threads_ended.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout)
    }
}

/// Whether this is a thread of `env`: it cannot wait for what happens on it.
pub fn is_thread_of(env: &Environment) -> bool {
    let this = thread::current().id();
    env.completion_queues().iter().any(|queue| queue.worker_id() == this)
}

/// A place for every completion-queue thread to stand still at, between two events, while the C core is told
/// to stop.
///
/// A thread that offers the core a slot for the next call just as the core gives all slots back may be too
/// late for it: that slot never comes back, and the queue and its thread never end. (1 in 500 stops that
/// came right after a call.)
pub struct Hold(Vec<oneshot::Sender<(oneshot::Sender<()>, oneshot::Receiver<()>)>>);

impl Hold {
    pub fn start(env: &Arc<Environment>) -> Hold {
        let start_one = |_| {
            let (call, called) = oneshot::channel::<(oneshot::Sender<()>, oneshot::Receiver<()>)>();
            spawn_on_next_thread(env, async move {
                let Ok((here, released)) = called.await else { return };
                // OK to fail: the stop has gone on without this thread.
                if here.send(()).is_ok() {
                    // Blocks the thread, for as long as `work` of `Hold::during` takes.
                    let _ = wait(released);
                }
            });
            call
        };
        Hold((0..env.completion_queues().len()).map(start_one).collect())
    }

    /// Does `work` while the threads stand still. Not to be called on one of them.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        let (mut all_here, mut releases) = (Vec::new(), Vec::new());
        for call in self.0 {
            let ((here, is_here), (release, released)) = (oneshot::channel(), oneshot::channel());
            // OK to fail: the thread has ended in a panic.
            let _ = call.send((here, released));
            all_here.push(is_here);
            releases.push(release);
        }
        wait(select(join_all(all_here), Delay::new(HOLD_TIMEOUT)));
        let done = work();
        drop(releases);
        done
    }
}
