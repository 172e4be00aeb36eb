//! Files that may change while a server runs.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{bounded, RecvTimeoutError, Sender};

use crate::error::{Error, Result};

/// How often files are looked at. They are small, and reading them is the only look that misses nothing.
const EVERY: Duration = Duration::from_secs(1);

/// A thread that looks at something each second. Dropping this ends it.
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at what `read` gives, and hands it to `changed` when it is not what it was: at first `seen`.
    pub fn start<T: PartialEq + Send + 'static>(
        name: &str,
        seen: T,
        read: impl Fn() -> T + Send + 'static,
        mut changed: impl FnMut(&T) + Send + 'static,
    ) -> Result<Watch> {
        let (stop, stopped) = bounded::<()>(0);
        let mut changes = Changes { seen, is_told: true };
        let looks = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Some(new) = changes.look(read()) {
                    changed(new);
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(looks);
        let thread = thread.map_err(|e| Error::Internal(format!("cannot start {name}: {e}")))?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("a thread that looks at files panicked");
        }
    }
}

/// What is new in a row of looks.
struct Changes<T> {
    seen: T,
    is_told: bool,
}

impl<T: PartialEq> Changes<T> {
    /// What two looks in turn have seen, once: what is only half written, or one file of two, is left alone.
    fn look(&mut self, look: T) -> Option<&T> {
        if look != self.seen {
            *self = Changes { seen: look, is_told: false };
            return None;
        }
        (!std::mem::replace(&mut self.is_told, true)).then_some(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_when_it_is_over() {
        let mut changes = Changes { seen: 1, is_told: true };
        let told: Vec<_> =
            [1, 2, 3, 3, 3, 1, 1, 3, 1, 1].map(|look| changes.look(look).copied()).into();
        let expected = [(3, 3), (6, 1), (9, 1)];
        let told: Vec<_> =
            told.iter().enumerate().filter_map(|(i, it)| Some((i, (*it)?))).collect();
        assert_eq!(told, expected);
    }
}
