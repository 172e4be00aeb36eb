//! The life of a call from its headers to its end: the message that never comes, the client that leaves,
//! the deadline, and the stop of the server.
//!
//! | variable | what it sets |
//! |---|---|
//! | `BILLSTREAM_TEST_STOPS` | stops of a server with calls of every kind (default 3) |
//! | `BILLSTREAM_TEST_DEADLINES` | exports that end at their deadline (default 30) |

#[path = "../common/mod.rs"]
mod common;

mod cancel;
mod deadline;
mod half_open;
mod headers;
#[path = "../interop/python.rs"]
mod python;
mod stop;

/// A number that the environment may set.
fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
