//! Why work must end: one [`Stop`] goes with a call from the transport down to its SQL. What runs
//! looks at it, what waits awaits it, and the error that comes of it keeps the reason.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};

/// Why work must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client cancelled the call or went away.
    ClientGone,
    /// The client's own deadline passed.
    Deadline,
    /// One of the server's limits on time passed; the text says which.
    Limit(String),
    /// The server is stopping.
    Stopping,
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Error {
        match reason {
            Reason::ClientGone => Error::Cancelled,
            Reason::Deadline => Error::DeadlineExceeded("the client's deadline passed".to_owned()),
            Reason::Limit(which) => Error::DeadlineExceeded(which),
            Reason::Stopping => Error::Unavailable("the server is shutting down".to_owned()),
        }
    }
}

/// A word that work must end, and why. It has the reasons of its parent too; the first reason stays.
///
/// ```
/// use billstream::stop::{Reason, Stop};
///
/// let server = Stop::default();
/// let call = server.child();
/// assert_eq!(call.reason(), None);
/// server.stop(Reason::Stopping);
/// assert_eq!(call.reason(), Some(Reason::Stopping));
/// ```
#[derive(Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    parent: Option<Stop>,
    told: OnceLock<Reason>,
    /// A condition that comes about by itself, and the reason that it is.
    passes: Option<(Passed, Reason)>,
    tasks: Mutex<HashMap<u64, Waker>>,
}

type Passed = Box<dyn Fn() -> bool + Send + Sync>;

impl Stop {
    /// A stop that is told by itself, or by this one.
    pub fn child(&self) -> Stop {
        Stop(Arc::new(Shared { parent: Some(self.clone()), ..Shared::default() }))
    }

    /// A child that has `reason` once `passed` is true. Nobody is woken by that: it is for work that
    /// looks, such as a statement of SQLite, which does so every 20 microseconds.
    pub fn when(&self, passed: impl Fn() -> bool + Send + Sync + 'static, reason: Reason) -> Stop {
        let passes: Option<(Passed, Reason)> = Some((Box::new(passed), reason));
        Stop(Arc::new(Shared { parent: Some(self.clone()), passes, ..Shared::default() }))
    }

    /// Says that work must end, and wakes who awaits it.
    pub fn stop(&self, reason: Reason) {
        // OK to fail: the first reason stays.
        let _ = self.0.told.set(reason);
        let tasks = std::mem::take(&mut *self.tasks());
        tasks.into_values().for_each(Waker::wake);
    }

    /// Why work must end; `None` while it may go on.
    pub fn reason(&self) -> Option<Reason> {
        let told = || self.0.told.get().cloned();
        let passed = || {
            let (passed, reason) = self.0.passes.as_ref()?;
            // Kept, so that it stays the reason whatever the condition does.
            passed().then(|| self.0.told.get_or_init(|| reason.clone()).clone())
        };
        told().or_else(passed).or_else(|| self.0.parent.as_ref()?.reason())
    }

    /// Whether work must end.
    pub fn is_stopped(&self) -> bool {
        self.reason().is_some()
    }

    /// The reason as an error, if there is one.
    pub fn check(&self) -> Result<()> {
        self.reason().map_or(Ok(()), |reason| Err(reason.into()))
    }

    /// Ready when this or a parent is told to stop. (Not when a condition of [`Stop::when`] comes about.)
    pub fn stopped(&self) -> Stopped {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Stopped { stop: self.clone(), key: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.0.tasks.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// This stop, its parent, and so on.
    fn line(&self) -> impl Iterator<Item = &Stop> {
        std::iter::successors(Some(self), |stop| stop.0.parent.as_ref())
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.reason()).finish()
    }
}

/// The future of [`Stop::stopped`]. Dropping it takes its task off the list.
pub struct Stopped {
    stop: Stop,
    key: u64,
}

impl Future for Stopped {
    type Output = Reason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reason> {
        if let Some(reason) = self.stop.reason() {
            return Poll::Ready(reason);
        }
        for stop in self.stop.line() {
            stop.tasks().insert(self.key, cx.waker().clone());
        }
        // Looked at again: who was told in between has woken nobody.
        self.stop.reason().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for stop in self.stop.line() {
            stop.tasks().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::task::noop_waker;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_first_reason_stays_and_parents_come_last() {
        let server = Stop::default();
        let call = server.child();
        call.stop(Reason::ClientGone);
        call.stop(Reason::Deadline);
        server.stop(Reason::Stopping);
        assert_eq!(call.check(), Err(Error::Cancelled));
        assert!(matches!(server.child().check(), Err(Error::Unavailable(_))));
    }

    #[test]
    fn what_passes_by_itself_is_seen_and_stays() {
        let passed = Arc::new(AtomicBool::new(false));
        let look = Arc::clone(&passed);
        let limit = Reason::Limit("max_stream_age_ms".to_owned());
        let stop = Stop::default().when(move || look.load(Ordering::SeqCst), limit.clone());
        let inner = stop.child();
        assert_eq!(inner.check(), Ok(()));
        passed.store(true, Ordering::SeqCst);
        assert_eq!(inner.reason(), Some(limit.clone()));
        passed.store(false, Ordering::SeqCst);
        assert_eq!(inner.reason(), Some(limit));
    }

    #[test]
    fn whoever_awaits_it_is_woken_wherever_it_is_told() {
        for depth in 0..3 {
            let line: Vec<Stop> =
                std::iter::successors(Some(Stop::default()), |stop| Some(stop.child()))
                    .take(3)
                    .collect();
            let waiting = line[2].stopped();
            let waiter = std::thread::spawn(move || block_on(waiting));
            line[depth].stop(Reason::Stopping);
            assert_eq!(waiter.join().unwrap(), Reason::Stopping);
        }
    }

    #[test]
    fn who_waits_no_more_leaves_nothing_behind() {
        let server = Stop::default();
        let mut waiting = Box::pin(server.child().stopped());
        let waker = noop_waker();
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(server.tasks().len(), 1);
        drop(waiting);
        assert!(server.tasks().is_empty());
    }
}
