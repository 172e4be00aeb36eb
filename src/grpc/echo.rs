//! A way to know that every completion-queue thread has finished what it was doing.
//!
//! Any of them may read any connection, and it hands the events of a call to the call's own thread
//! one by one. A thread that answers has handed over all events of what it had read before.

use std::sync::Arc;

use futures::channel::{mpsc, oneshot};
use futures::StreamExt;
use grpcio::Environment;

use crate::grpc::poller::{spawn_on_next_thread, Poller};

/// A task on each thread that answers when its thread comes to it.
pub struct Echoes {
    threads: Vec<mpsc::UnboundedSender<oneshot::Sender<()>>>,
    poller: Poller,
}

impl Echoes {
    /// To be called before anything else picks threads of `env`: it hands them out in turn.
    pub fn start(env: &Arc<Environment>, poller: Poller) -> Echoes {
        let start_one = |_| {
            let (calls, mut called) = mpsc::unbounded::<oneshot::Sender<()>>();
            spawn_on_next_thread(env, async move {
                while let Some(reply) = called.next().await {
                    // OK to fail: the call is over.
                    let _ = reply.send(());
                }
            });
            calls
        };
        let threads = (0..env.completion_queues().len()).map(start_one).collect();
        Echoes { threads, poller }
    }

    /// Returns when each thread has handed over what it had read when this was called, and the
    /// thread of the caller has taken it.
    pub async fn call(&self) {
        // Once for the other threads to hand over. Once more, because the answer of the caller's
        // own thread may stand before what they handed over.
        for _ in 0..2 {
            let polled = self.poller.echo();
            let answers: Vec<_> = self.threads.iter().map(call_one).collect();
            for answer in answers.into_iter().chain([polled]) {
                // OK to fail: the server is stopping.
                let _ = answer.await;
            }
        }
    }
}

fn call_one(thread: &mpsc::UnboundedSender<oneshot::Sender<()>>) -> oneshot::Receiver<()> {
    let (reply, answer) = oneshot::channel();
    // OK to fail: then the answer fails too.
    let _ = thread.unbounded_send(reply);
    answer
}
