//! The rpcs over the wire: what the proto file promises, and nothing of how it is done.

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod books;
mod bulk_create;
mod compression;
mod events;
mod export;
mod input;
mod ledger;
mod list;
mod reconcile;
mod stop;
mod summary;
mod trials;
