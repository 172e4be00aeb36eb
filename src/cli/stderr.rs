//! Lines on stderr.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line on stderr. Where that is closed or full the line is lost: `eprintln!` would end the
/// command for it, and what the command does matters more than what it says.
pub fn say(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
