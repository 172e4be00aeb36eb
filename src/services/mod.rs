//! Services that a server of gRPC may have beside its own: its health, and what it serves.
//!
//! They stand alone: of this crate they know the messages in `proto`, and a program that serves with `grpcio`
//! and nothing else of ours may have them.
//!
//! ```
//! use std::sync::Arc;
//! use billstream::grpcio::{EnvBuilder, ServerBuilder, ServerCredentials};
//! use billstream::services::{health, reflection, Limits};
//!
//! let statuses = health::Statuses::new(Limits::default());
//! let reflection = reflection::Reflection::new(Limits::default(), health::files());
//! let mut server = ServerBuilder::new(Arc::new(EnvBuilder::new().cq_count(1).build()))
//!     .register_service(statuses.service())
//!     .register_service(reflection.service())
//!     .build()?;
//! server.add_listening_port("127.0.0.1:0", ServerCredentials::insecure())?;
//! statuses.set("", health::Status::Serving);
//! server.start();
//!
//! // At the end: a Watch would go on for ever, and the server with it.
//! statuses.set("", health::Status::NotServing);
//! statuses.close();
//! reflection.close();
//! # futures::executor::block_on(server.shutdown())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod health;
pub mod reflection;

mod calls;
mod files;
mod wire;

use std::time::Duration;

/// What the streams of one of the services may take. (A request has 64 KiB at most; a larger one is
/// RESOURCE_EXHAUSTED. Calls of one message take nothing, nor do those whose message has not come.)
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that may be open; a further one is RESOURCE_EXHAUSTED.
    pub max_streams: usize,
    /// The same of one connection; all clients of a unix socket are one.
    pub max_streams_per_connection: usize,
    /// How long a call may wait for its client's message; then it is DEADLINE_EXCEEDED.
    pub message_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_streams: 1024,
            max_streams_per_connection: 64,
            message_timeout: Duration::from_secs(60),
        }
    }
}
