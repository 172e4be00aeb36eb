//! What these tests share: clients with small windows, and the details of a status.

use std::sync::Arc;
use std::time::Duration;

use billstream::client::Stub;
use billstream::proto::error_details::{RetryInfo, Status};
use grpcio::{CallOption, ChannelBuilder, EnvBuilder, RpcStatus};
use protobuf::Message;

pub use crate::common::process::Process;
use crate::common::DEADLINE;

/// A call that hangs fails instead.
pub fn options() -> CallOption {
    CallOption::default().timeout(2 * DEADLINE)
}

/// Clients with a connection each, on two threads together, and with a window of 64 KiB a stream:
/// gRPC would otherwise enlarge it to megabytes on loopback.
pub fn slow_clients(addr: &str, count: usize) -> Vec<Stub> {
    let env = Arc::new(EnvBuilder::new().cq_count(2).build());
    let client = |_| {
        let builder = ChannelBuilder::new(Arc::clone(&env))
            .http2_bdp_probe(false)
            .use_local_subchannel_pool(true);
        Stub::with_channel(builder.connect(addr))
    };
    (0..count).map(client).collect()
}

/// Clients with a connection each, on two threads together.
pub fn clients(addr: &str, count: usize) -> Vec<Stub> {
    let env = Arc::new(EnvBuilder::new().cq_count(2).build());
    (0..count).map(|_| Stub::with_env(Arc::clone(&env), addr)).collect()
}

/// The delay of the google.rpc.RetryInfo in the details of a status.
pub fn retry_delay(status: &RpcStatus) -> Duration {
    let details = Status::parse_from_bytes(status.details()).unwrap();
    assert_eq!(details.message, status.message());
    let info = details.details.iter().find_map(|any| any.unpack::<RetryInfo>().unwrap());
    let delay = info.expect("the details have a RetryInfo").retry_delay.unwrap();
    Duration::new(delay.seconds as u64, delay.nanos as u32)
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
