//! The streams under pressure: slow consumers, many at once, limits reached on purpose.

#[path = "../common/mod.rs"]
mod common;
mod support;

mod frames;
mod input;
mod life;
mod limits;
mod reconcile;
mod scans;
mod shares;
mod soak;
mod stalled;
mod wal;
