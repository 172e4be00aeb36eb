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
//! (`load ADDR beside` of benches/compare, 2 cores: p99 of a unary call beside 8 exports 595 ms without
//! it, 0.9 ms with it.)

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::{mpsc, oneshot};
use futures::executor::block_on;
use futures::future::{select, Either};
use futures::StreamExt;
use futures_timer::Delay;
use grpcio::{ChannelBuilder, Client, Environment};

/// How long it reads sockets after the last chunk of an export.
const LINGER: Duration = Duration::from_millis(100);

/// A handle of the thread.
#[derive(Clone)]
pub struct Poller {
    shared: Arc<Shared>,
    /// Asks the thread to look at `shared` again, and to answer if it is to.
    calls: mpsc::UnboundedSender<Option<oneshot::Sender<()>>>,
}

struct Shared {
    start: Instant,
    /// When a chunk was last sent, in milliseconds after `start`.
    last_chunk: AtomicU64,
    /// Whether the thread stands aside, until it is called.
    is_aside: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn is_idle(&self) -> bool {
        let last_chunk = self.last_chunk.load(Ordering::SeqCst);
        self.now().saturating_sub(last_chunk) >= LINGER.as_millis() as u64
    }
}

impl Poller {
    /// Takes the one thread of `env`, which has no other use.
    pub fn start(env: &Arc<Environment>) -> Poller {
        let (calls, called) = mpsc::unbounded();
        // As if the last chunk were long ago.
        let start = Instant::now().checked_sub(LINGER).unwrap_or_else(Instant::now);
        let last_chunk = AtomicU64::new(0);
        let shared = Arc::new(Shared { start, last_chunk, is_aside: AtomicBool::new(false) });
        spawn_on_next_thread(env, run(Arc::clone(&shared), called));
        let poller = Poller { shared, calls };
        poller.call(None);
        poller
    }

    /// An export sends a chunk: the thread reads sockets for a while.
    pub fn chunk_sent(&self) {
        self.shared.last_chunk.store(self.shared.now(), Ordering::SeqCst);
        if self.shared.is_aside.swap(false, Ordering::SeqCst) {
            self.call(None);
        }
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

async fn run(
    shared: Arc<Shared>,
    mut called: mpsc::UnboundedReceiver<Option<oneshot::Sender<()>>>,
) {
    // A new task is first polled by the thread that spawns it, and only woken on its own.
    called.next().await;
    loop {
        shared.is_aside.store(true, Ordering::SeqCst);
        let call = if shared.is_idle() {
            // Blocks the thread. A chunk sent before this look was seen by it, one sent later calls.
            block_on(called.next())
        } else {
            shared.is_aside.store(false, Ordering::SeqCst);
            // Leaves the thread to gRPC, which reads sockets with it.
            match select(pin!(called.next()), Delay::new(LINGER)).await {
                Either::Left((call, _)) => call,
                Either::Right(_) => continue,
            }
        };
        match call {
            // OK to fail: the call is over.
            Some(Some(reply)) => drop(reply.send(())),
            Some(None) => {}
            None => return,
        }
    }
}

/// Runs `task` on the thread of `env` whose turn it is.
pub fn spawn_on_next_thread(
    env: &Arc<Environment>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    // Never connected: a channel is what binds a task to a thread.
    let channel = ChannelBuilder::new(Arc::clone(env)).connect("127.0.0.1:0");
    Client::new(channel).spawn(task);
}

#[cfg(test)]
mod tests {
    use super::*;
    use grpcio::EnvBuilder;

    #[test]
    fn it_polls_while_chunks_flow_and_answers_always() {
        let env = Arc::new(EnvBuilder::new().cq_count(1).build());
        let poller = Poller::start(&env);
        let deadline = Instant::now() + Duration::from_secs(30);
        let reaches = |is_aside: bool, meanwhile: &dyn Fn()| {
            while poller.shared.is_aside.load(Ordering::SeqCst) != is_aside {
                assert!(Instant::now() < deadline, "aside is to be {is_aside}");
                meanwhile();
                block_on(poller.echo()).unwrap();
            }
        };
        reaches(true, &|| ());
        block_on(poller.echo()).unwrap();
        reaches(false, &|| poller.chunk_sent());
        reaches(true, &|| ());
        poller.close();
        assert!(block_on(poller.echo()).is_err());
    }
}
