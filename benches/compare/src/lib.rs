//! What the programs of this workspace share. `peer` serves, `load` and `bench` measure.
//!
//! - [`proto`]: the messages, and tonic's service and client, from the main crate's proto file
//! - [`rules`]: what a valid message is; both peers use it
//! - [`store`], [`bulk`], [`reconcile`]: the statements over the main crate's schema; both peers use them
//! - [`totals`]: the kept totals, by the schema's triggers or in their place
//! - [`encode`]: rows to protobuf bytes without a struct between; the tuned peer and a limit use it
//! - [`client`]: the neutral client, raw HTTP/2 that counts without decoding
//! - [`load`]: the ways to load a server, each a function over the neutral client

pub mod bulk;
pub mod client;
pub mod encode;
pub mod load;
pub mod reconcile;
pub mod rules;
pub mod store;
pub mod totals;

/// The generated messages, service and client of `billing.v1`.
pub mod proto {
    #![allow(clippy::doc_lazy_continuation, clippy::doc_overindented_list_items)]
    tonic::include_proto!("billing.v1");
}
