//! Why work must end: one [`Stop`] goes with a call from the transport down to its SQL. What runs
//! looks at it, for what waits the sweep of `calls` does, and the error that comes of it keeps the
//! reason.

use std::fmt;
use std::sync::{Arc, OnceLock};

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
}

type Passed = Box<dyn Fn() -> bool + Send + Sync>;

impl Stop {
    /// A stop that is told by itself, or by this one.
    pub fn child(&self) -> Stop {
        Stop(Arc::new(Shared { parent: Some(self.clone()), ..Shared::default() }))
    }

    /// A child that has `reason` once `passed` is true. It is asked often: by a statement of SQLite every
    /// 20 microseconds.
    pub fn when(&self, passed: impl Fn() -> bool + Send + Sync + 'static, reason: Reason) -> Stop {
        let passes: Option<(Passed, Reason)> = Some((Box::new(passed), reason));
        Stop(Arc::new(Shared { parent: Some(self.clone()), passes, ..Shared::default() }))
    }

    /// Says that work must end. Nobody is woken by it.
    pub fn stop(&self, reason: Reason) {
        // OK to fail: the first reason stays.
        let _ = self.0.told.set(reason);
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
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.reason()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

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
}
