//! The line at the end of each call: its fields, its request id, what a slow one waited for, and what is never in it.

#[path = "../common/mod.rs"]
mod common;

mod lines;
mod records;
mod request_id;
mod secrets;
mod slow;

use std::sync::Arc;

use billstream::Config;
use grpcio::{ChannelBuilder, Client, EnvBuilder};

/// Where no call is slow.
fn patient() -> Config {
    Config { slow_call_ms: 0, ..Config::default() }
}

/// A client that shows what the stub does not.
fn client(addr: &str) -> Client {
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let channel = ChannelBuilder::new(env).raw_cfg_int(c"grpc.enable_http_proxy".to_owned(), 0);
    Client::new(channel.connect(addr))
}
