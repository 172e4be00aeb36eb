//! What streams of payments hold in memory, in bytes: each its own, and all of them together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

/// What all streams hold together.
pub struct HeldByAll {
    bytes: AtomicUsize,
    max: usize,
}

impl HeldByAll {
    pub fn new(max: usize) -> HeldByAll {
        HeldByAll { bytes: AtomicUsize::new(0), max }
    }
}

/// What one stream holds. One side takes, the other gives back.
pub struct Held {
    all: Arc<HeldByAll>,
    bytes: AtomicUsize,
    max: usize,
    room: AtomicWaker,
}

impl Held {
    pub fn new(all: &Arc<HeldByAll>, max: usize) -> Held {
        let (all, room) = (Arc::clone(all), AtomicWaker::new());
        Held { all, bytes: AtomicUsize::new(0), max, room }
    }

    /// Ready when the stream holds `bytes` more. A stream that holds none never waits, so that each goes on,
    /// however much the others hold.
    pub fn poll_take(&self, bytes: usize, context: &mut Context<'_>) -> Poll<()> {
        if self.take(bytes) {
            return Poll::Ready(());
        }
        // Registered before the second look: what is given back in between is seen or wakes the task.
        self.room.register(context.waker());
        if self.take(bytes) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn take(&self, bytes: usize) -> bool {
        // The other side makes it only less.
        let own = self.bytes.load(Ordering::Acquire);
        if own > 0 && own + bytes > self.max {
            return false;
        }
        let all = self.all.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if own > 0 && all > self.all.max {
            self.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        true
    }

    /// Ready when it holds nothing.
    pub fn poll_empty(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered before the look, as above.
        self.room.register(context.waker());
        match self.bytes.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// What it holds now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn give_back(&self, bytes: usize) {
        self.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.room.wake();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;

    #[test]
    fn a_stream_waits_for_its_own_and_is_never_stuck_behind_the_others() {
        let all = Arc::new(HeldByAll::new(10));
        let [one, other] = [(); 2].map(|()| Held::new(&all, 8));
        let takes = |held: &Held, bytes| {
            held.poll_take(bytes, &mut Context::from_waker(noop_waker_ref())).is_ready()
        };
        assert!(takes(&one, 6));
        // Over its own limit; then over that of all.
        assert!(!takes(&one, 3));
        assert!(takes(&other, 2));
        assert!(!takes(&other, 3));
        one.give_back(6);
        assert!(takes(&other, 3));
        let is_empty =
            |held: &Held| held.poll_empty(&mut Context::from_waker(noop_waker_ref())).is_ready();
        assert_eq!((is_empty(&one), is_empty(&other)), (true, false));
        // More than there is, while it holds nothing.
        assert!(takes(&one, 20));
        assert!(!takes(&other, 1));
        drop(one);
        assert!(takes(&other, 1));
        drop(other);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }
}
