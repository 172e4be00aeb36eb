//! Ctrl-C in a command that can say where to go on from.
//!
//! A signal only raises a flag: whatever a client waits for then ends, and the command with
//! [`Failure::Interrupted`]. A second Ctrl-C ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use billstream::stop::{Reason, Stop};
use signal_hook::consts::SIGINT;
use signal_hook::{flag, low_level};

use super::failure::{Failure, Result};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C is noticed here. Before, and in commands without this, it just ends the process.
pub fn watch() -> Result<()> {
    let requested = REQUESTED.get_or_init(Arc::default);
    // In this order: the first signal raises the flag, the second one finds it raised.
    flag::register_conditional_default(SIGINT, Arc::clone(requested))
        .and_then(|_| flag::register(SIGINT, Arc::clone(requested)))
        .map_err(|error| Failure::io("signals", error))?;
    Ok(())
}

/// Whether Ctrl-C was pressed.
pub fn is_requested() -> bool {
    REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}

/// Ends the calls of a client when Ctrl-C was pressed.
pub fn stop() -> Stop {
    Stop::default().when(is_requested, Reason::ClientGone)
}

/// Ends the process as the signal would have: a shell stops its loop for this, and for no exit code.
pub fn end_process() {
    let _ = low_level::emulate_default_handler(SIGINT);
}
