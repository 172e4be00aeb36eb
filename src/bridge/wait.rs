//! The end of a future for a thread that may wait.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long [`wait_while`] may not notice that the wait is over.
pub const TICK: Duration = Duration::from_millis(50);

/// Waits for `future` on this thread. It works inside any executor too, where `block_on` of `futures` panics
/// on a thread that is in one already.
pub fn wait<F: Future>(future: F) -> F::Output {
    let parked = || {
        thread::park();
        true
    };
    // OK because it is never told to give up.
    drive(future, parked).expect("a wait without end")
}

/// As [`wait`], for as long as `goes_on` says so, which is asked every [`TICK`]; `None` where it ended before.
pub fn wait_while<F: Future>(future: F, mut goes_on: impl FnMut() -> bool) -> Option<F::Output> {
    if !goes_on() {
        return None;
    }
    drive(future, || {
        thread::park_timeout(TICK);
        goes_on()
    })
}

/// Asks `future` again after each `park`, which says whether to go on.
fn drive<F: Future>(future: F, mut park: impl FnMut() -> bool) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return Some(output),
            // It may return without a cause: then the future is asked once too often.
            Poll::Pending if park() => {}
            Poll::Pending => return None,
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::oneshot;
    use futures::executor::block_on;

    #[test]
    fn it_waits_for_another_thread_inside_an_executor_too() {
        let (sender, receiver) = oneshot::channel();
        let other = thread::spawn(move || sender.send(7).unwrap());
        assert_eq!(block_on(async { wait(receiver) }), Ok(7));
        other.join().unwrap();
    }

    #[test]
    fn a_wait_is_given_up_when_it_is_told_to() {
        let (sender, receiver) = oneshot::channel::<()>();
        let mut asked = 0;
        let waited = wait_while(receiver, || {
            asked += 1;
            asked < 3
        });
        assert_eq!((waited, asked), (None, 3));
        drop(sender);
        assert_eq!(wait_while(async { 7 }, || true), Some(7));
    }
}
