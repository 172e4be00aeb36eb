//! Backups of a server that is at work: over the wire, from another process, and by Litestream.

#[path = "../common/mod.rs"]
mod common;

mod copies;
mod litestream;
mod load;
mod refusals;
