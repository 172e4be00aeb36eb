//! How rows come to the messages of a stream, on the thread of its connection.
//!
//! A command reads rows on a thread of its own and hands them over through a [`billstream::bridge`]; the
//! future that takes them is spawned on the connection's thread, as that of an export is. What is at hand is a
//! message: a lone row goes at once, and many cost one.

/// Rows that may wait for the connection's thread.
pub const AHEAD: usize = 2048;

/// The most rows of a message. The largest ones fill 0.7 MiB, a sixth of what a server takes by default.
pub const BATCH: usize = 512;
