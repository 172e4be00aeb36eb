//! What a hostile peer can do to everyone else: each attack with frames of its own, and beside it a
//! well-behaved client that must not notice.
//!
//! In `cargo test` an attack lasts a moment. Its long form, with the figures:
//!
//! ```text
//! BILLSTREAM_ABUSE_SECONDS=20 cargo test --release --locked --test abuse -- --nocapture --test-threads 1
//! ```

#[path = "../common/mod.rs"]
mod common;

mod accept;
mod beside;
mod foreign;
mod messages;
mod proxy;
mod resets;
mod streams;
