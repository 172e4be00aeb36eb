//! Ctrl-C in a command that can say where to go on from.
//!
//! A signal only raises a flag: whatever waits looks at it in between, and the command ends with
//! [`Failure::Interrupted`] after the row at hand. A second Ctrl-C ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use billstream::bridge::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};
use signal_hook::consts::SIGINT;
use signal_hook::{flag, low_level};

use super::failure::{Failure, Result};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How long a wait may not notice the flag.
const TICK: Duration = Duration::from_millis(50);

/// From now on Ctrl-C is noticed here. Before, and in commands without this, it just ends the process.
pub fn watch() -> Result<()> {
    let requested = REQUESTED.get_or_init(Arc::default);
    // In this order: the first signal raises the flag, the second one finds it raised.
    flag::register_conditional_default(SIGINT, Arc::clone(requested))
        .and_then(|_| flag::register(SIGINT, Arc::clone(requested)))
        .map_err(|error| Failure::io("signals", error))?;
    Ok(())
}

/// Fails when Ctrl-C was pressed.
pub fn check() -> Result<()> {
    match REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed)) {
        true => Err(Failure::Interrupted(String::new())),
        false => Ok(()),
    }
}

/// The next value; `None` when the sender is gone.
pub fn recv<T>(from: &Receiver<T>) -> Result<Option<T>> {
    loop {
        check()?;
        // Looking at the clock takes longer than a row does.
        if let Some(value) = from.try_recv() {
            return Ok(Some(value));
        }
        match from.recv_timeout(TICK) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Sends `value` when there is room; false when the receiver is gone.
pub fn send<T>(to: &Sender<T>, mut value: T) -> Result<bool> {
    loop {
        check()?;
        value = match to.send_timeout(value, TICK) {
            Ok(()) => return Ok(true),
            Err(SendTimeoutError::Disconnected(_)) => return Ok(false),
            Err(SendTimeoutError::Timeout(value)) => value,
        };
    }
}

pub fn sleep(delay: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < delay {
        check()?;
        thread::sleep(TICK.min(delay.saturating_sub(start.elapsed())));
    }
    check()
}

/// Ends the process as the signal would have: a shell stops its loop for this, and for no exit code.
pub fn end_process() {
    let _ = low_level::emulate_default_handler(SIGINT);
}
