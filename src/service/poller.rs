//! One more thread that reads sockets, while exports keep those of the completion queues busy.
//!
//! A completion-queue thread looks at the sockets when it has no event at hand, and under an export it
//! always has one: with as many exports as threads nobody would read a request for a long time. Any
//! thread that waits for events of gRPC reads every socket of the process (with epoll, gRPC's choice on
//! Linux), so a thread with a queue of its own and no calls always does.
//!
//! While there is no export it must stand aside: what another thread than that of the call reads has to
//! be handed over, and the quickest answer is that of a single thread. So it waits for the next export
//! where it would wait for sockets.
//!
//! (`load ADDR beside` of benches/compare, 2 cores: p99 of a unary call beside 8 exports 375 ms without
//! it, 7.0 ms with it, and 1.7 ms with the yields of `export`.)

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use futures::channel::{mpsc, oneshot};
use futures::executor::block_on;
use futures::StreamExt;
use grpcio::Environment;

use crate::service::echo::spawn_on_next_thread;

/// A handle of the thread.
#[derive(Clone)]
pub struct Poller {
    /// The scans under way that have filled more than a chunk.
    scans: Arc<AtomicUsize>,
    /// Asks the thread to look at `scans` again, and to answer if it is to.
    calls: mpsc::UnboundedSender<Option<oneshot::Sender<()>>>,
}

impl Poller {
    /// Takes the one thread of `env`, which has no other use.
    pub fn start(env: &Arc<Environment>) -> Poller {
        let (calls, called) = mpsc::unbounded();
        let scans = Arc::<AtomicUsize>::default();
        spawn_on_next_thread(env, run(Arc::clone(&scans), called));
        let poller = Poller { scans, calls };
        poller.call(None);
        poller
    }

    /// The thread reads sockets until this and all others like it are dropped.
    pub fn poll(&self) -> Polling {
        if self.scans.fetch_add(1, Ordering::Relaxed) == 0 {
            self.call(None);
        }
        Polling(self.clone())
    }

    /// Answered when the thread has handed over what it has read.
    pub fn echo(&self) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        self.call(Some(reply));
        answer
    }

    /// Ends the thread's task, so that the thread can end.
    pub fn close(&self) {
        self.calls.close_channel();
    }

    fn call(&self, reply: Option<oneshot::Sender<()>>) {
        // OK to fail: the server is stopping.
        let _ = self.calls.unbounded_send(reply);
    }
}

/// A scan that keeps a completion queue busy.
pub struct Polling(Poller);

impl Drop for Polling {
    fn drop(&mut self) {
        if self.0.scans.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.call(None);
        }
    }
}

async fn run(
    scans: Arc<AtomicUsize>,
    mut called: mpsc::UnboundedReceiver<Option<oneshot::Sender<()>>>,
) {
    // A new task is first polled by the thread that spawns it, and only woken on its own.
    called.next().await;
    loop {
        // The first blocks the thread. The second leaves it to gRPC, which reads sockets with it.
        let call = match scans.load(Ordering::Relaxed) {
            0 => block_on(called.next()),
            _ => called.next().await,
        };
        match call {
            // OK to fail: the call is over.
            Some(Some(reply)) => drop(reply.send(())),
            Some(None) => {}
            None => return,
        }
    }
}
