//! A unary call that its client leaves.

use std::time::{Duration, Instant};

use billstream::grpc::methods::GET_SUMMARY;
use billstream::proto::report::SummaryRequest;
use billstream::Config;
use grpcio::{CallOption, ChannelBuilder, EnvBuilder};

use crate::common::*;

/// Many times over what a query takes until it sees that nobody waits for it.
const CALLS: usize = 40;

/// A summary that reads every invoice.
fn slow() -> SummaryRequest {
    SummaryRequest { issued_from: time(1), ..SummaryRequest::default() }
}

#[test]
fn a_cancelled_query_ends() {
    let _alone = alone();
    let config = Config { unary_workers: 1, ..Config::default() };
    let server = TestServer::with_copy(&database(1_000_000), config);
    let (client, other) = (server.client(), server.client());
    let one = |client: &billstream::client::Stub| {
        let start = Instant::now();
        client.get_summary(&slow(), CallOption::default().timeout(4 * DEADLINE)).unwrap();
        start.elapsed()
    };
    one(&client);
    let before = one(&client);
    let env = std::sync::Arc::new(EnvBuilder::new().cq_count(1).build());
    let left = grpcio::Client::new(ChannelBuilder::new(env).connect(&server.addr()));
    let call = |_| left.unary_call_async(&GET_SUMMARY, &slow(), CallOption::default()).unwrap();
    let calls: Vec<_> = (0..CALLS).map(call).collect();
    eventually("one of them runs", || server.get().connections_in_use() > 0);
    let start = Instant::now();
    drop(calls);
    one(&other);
    let waited = start.elapsed();
    let usual = before.max(one(&other));
    println!(
        "{CALLS} queries of {usual:?} were cancelled; the next one was there after {waited:?}"
    );
    assert!(waited < usual * CALLS as u32 / 4 + Duration::from_millis(500), "{waited:?}");
}
