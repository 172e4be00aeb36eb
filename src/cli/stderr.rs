//! Lines on stderr.

use std::fmt::Display;
use std::io::{self, Write};

use env_logger::{Builder, Env};

/// Starts the log, from `level` on where RUST_LOG says nothing else.
pub fn log_from(level: &str) {
    Builder::from_env(Env::default().default_filter_or(level)).init();
}

/// Prints a line on stderr. Where that is closed or full the line is lost: `eprintln!` would end the
/// command for it, and what the command does matters more than what it says.
pub fn say(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
