//! A billing report server for programs without an async runtime: one process, one SQLite file, gRPC through the C
//! core and `grpcio`. It can serve a network, live inside another program, or be the file alone.
//!
//! ```
//! use billstream::proto::report::{CreateInvoiceRequest, ExportRequest, SummaryRequest};
//! use billstream::protobuf::well_known_types::timestamp::Timestamp;
//! use billstream::{Config, Server};
//!
//! # let dir = tempfile::tempdir()?;
//! # let db = dir.path().join("bills.db");
//! // No port is opened: `Server::start(config)` would listen on `config.listen`.
//! let server = Server::builder(Config { db, ..Config::default() }).without_listeners().start()?;
//! let client = server.local();
//!
//! let mut upload = client.upload()?;
//! upload.send(&CreateInvoiceRequest {
//!     customer_id: "cust-1".to_owned(),
//!     total_amount_cents: 500,
//!     currency: "EUR".to_owned(),
//!     issued_at: Some(Timestamp::now()).into(),
//!     ..Default::default()
//! })?;
//! assert_eq!(upload.commit("batch-1")?.created_count, 1);
//!
//! for invoices in client.export(&ExportRequest::default()) {
//!     for invoice in invoices?.iter() {
//!         println!("{} {} {}", invoice.customer_id, invoice.total_amount_cents, invoice.currency);
//!     }
//! }
//! assert_eq!(client.summary(&SummaryRequest::default())?.totals[0].total_cents, 500);
//! println!("{}", server.shutdown()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | there is |
//! |---|---|
//! | run a server | [`Server`]; [`server::Builder`] for services of your own beside it, your own threads, several addresses |
//! | bound what it takes | [`Config`]: each limit with its unit, its default, and what happens at it |
//! | call it | [`Client`]: over gRPC ([`Client::connect`]), in process ([`Server::local`]), or on a file that no server has ([`Client::open`]) |
//! | write and read messages | [`proto::report`]; [`model`] has the terms that they share with the client |
//! | know why it failed | [`Error`] of a server, [`client::Error`] of a call: each has what a caller can act on |
//! | see what it does | [`Server::metrics`], the [`metrics`]; [`Server::prometheus`] and [`Config::admin_listen`] for an operator; what it says goes to the `log` crate |
//! | stop it, or a call | [`Server::shutdown`], or a drop; [`stop`] |
//! | stream a blocking source of your own | [`bridge`]: bounded channels between threads and futures |
//! | tell and ask how it is, and what it serves | [`Server::health`], [`services`]: the health protocol and reflection of gRPC, for any server on `grpcio` |
//! | copy, check or mend the file | [`server::backup`], [`server::check`], [`server::restore`] |
//!
//! `docs/embedding.md` has the crate that embeds it, with its build, threads, executors and forks; the examples
//! `embed` and `stream_blocking` are whole programs. With `default-features = false` nothing of the command line
//! is linked.
//!
//! # For contributors
//!
//! Imports go downwards only, and neighbours on a floor do not know each other, with the one
//! exception that all may use floor 1.
//!
//! | floor | modules |
//! |---|---|
//! | 7 | the binary: flags, commands, progress bars (`src/main.rs`, `src/cli`) |
//! | 6 | [`server`]: start, address, stop |
//! | 5 | [`client`] · `admin`: the HTTP of the operator |
//! | 4 | `grpc`: binds the calls to grpcio: sinks, metadata, codecs · [`services`]: health and reflection |
//! | 3 | `calls`: the rpcs without a transport; admission, validation, times, the one table of statuses |
//! | 2 | `store`: the database as verbs, with SQLite below · [`bridge`]: channels between threads and futures · `workers`: threads |
//! | 1 | `amount` · `certificate` · [`config`] · `currency` · [`model`] · [`error`] · `method` · [`metrics`] · `peer` · [`proto`] · `status` · [`stop`] · `tokens` |
//!
//! The rules, to which `tests/house_rules.rs` holds the code, and the table to the imports:
//!
//! * Only `store::sqlite` names rusqlite, and none of its types passes the door of `store`. Only `grpc`, `services`,
//!   `server` and `client` name grpcio.
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

#![forbid(unsafe_code)]
#![deny(missing_docs)]

// For the files that the command line reads and writes; no part of the interface.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod amount;
mod certificate;
pub mod config;
// For the same files; no part of the interface.
#[doc(hidden)]
pub mod currency;
pub mod error;
mod method;
pub mod metrics;
pub mod model;
mod peer;
pub mod proto;
mod status;
pub mod stop;
// For the command that makes tokens; no part of the interface.
#[doc(hidden)]
pub mod tokens;

pub mod bridge;
// For the benchmark of the floors; no part of the interface.
#[doc(hidden)]
pub mod store;
mod workers;

mod calls;
// For tests that go past `Client`, and for fuzzing; no part of the interface.
#[doc(hidden)]
pub mod grpc;
pub mod services;

mod admin;
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
