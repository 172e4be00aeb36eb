//! A single-node billing report server: the gRPC C core through `grpcio`, SQLite through `rusqlite`
//! and an `r2d2` pool, bounded channels between them, and no async runtime.
//!
//! [`Server::start`] is the one entry, for the binary, the tests, the benchmarks and a program that
//! embeds the server. [`client::Stub`] is the other end.
//!
//! # The floors
//!
//! Imports go downwards only, and neighbours on a floor do not know each other, with the one
//! exception that all may use floor 1.
//!
//! | floor | modules |
//! |---|---|
//! | 7 | the binary: flags, commands, progress bars (`src/main.rs`, `src/cli`) |
//! | 6 | [`server`]: start, address, stop |
//! | 5 | [`client`] |
//! | 4 | [`grpc`]: binds the calls to grpcio: sinks, metadata, codecs |
//! | 3 | [`calls`]: the rpcs without a transport; admission, validation, times, the one table of statuses |
//! | 2 | [`store`]: the database as verbs, with SQLite below · [`bridge`]: channels between threads and futures · [`workers`]: threads |
//! | 1 | [`config`] · [`model`] · [`error`] · [`metrics`] · [`peer`] · [`proto`] · [`status`] · [`stop`] |
//!
//! # The rules
//!
//! * Only `store::sqlite` names rusqlite, and none of its types passes the door of `store`. Only `grpc`, `server`
//!   and `client` name grpcio.
//! * Nothing on a completion-queue thread blocks: no pool, no SQL, no `recv`. (One exception: totals, and at
//!   times pages of up to `inline_rows`, are read there when a connection is free at once. The thread
//!   of `grpc::poller` may wait, since it serves no call.)
//! * Every queue, pool, page and message has a limit in [`Config`], with its unit in its name, and
//!   its documentation says what happens at the limit.
//! * Ownership is the stop protocol: dropping a receiver ends its scan, dropping the last sender
//!   ends its stream, dropping a ticket takes its job out of the queue. A permit lives as long as the
//!   work it admits.
//! * No peer may take what all need: limits and queues have shares, and threads are given in turns by host.
//! * SQL lives in `sql/`, a statement a file, each with the index that it must use.
//! * Nothing here prints, logs to a logger of its own, handles a signal or ends the process.
//!
//! `tests/house_rules.rs` holds the code to them.

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod metrics;
pub mod model;
pub mod peer;
pub mod proto;
pub mod status;
pub mod stop;

pub mod bridge;
pub mod store;
pub mod workers;

pub mod calls;
pub mod grpc;

pub mod client;
pub mod server;

/// What an embedder writes services of their own with, in the one version and with the one codec that go with
/// this crate: `grpcio` as it comes has another codec on, and does not compile with both.
pub use grpcio;
/// The messages of [`proto`] are its.
pub use protobuf;

pub use client::Client;
pub use config::Config;
pub use error::{Error, Result};
pub use server::Server;
