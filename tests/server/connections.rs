//! What a connection may do without a call, and how long it may live.

use std::io::{Error, ErrorKind};

use billstream::proto::report::SummaryRequest;
use billstream::Config;
use grpcio::{CallOption, MetadataBuilder, RpcStatusCode};

use crate::common::http2::*;
use crate::common::*;

/// Reads to the end of the connection: the frames before it, none of which is answered.
fn to_the_end(http2: &mut Http2) -> (Vec<Frame>, Error) {
    let mut frames = Vec::new();
    loop {
        match http2.receive() {
            Ok(frame) => frames.push(frame),
            Err(end) => return (frames, end),
        }
    }
}

/// The server has closed it; a read that waits too long is another error.
fn assert_closed(end: &Error) {
    assert!(matches!(end.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{end}");
}

#[test]
fn a_peer_that_answers_no_ping_is_closed() {
    let config =
        Config { keepalive_time_ms: 1_000, keepalive_timeout_ms: 1_000, ..Config::default() };
    let server = TestServer::start(config);
    let (frames, end) = to_the_end(&mut Http2::connect(&server.addr()));
    assert_closed(&end);
    assert!(frames.iter().any(|frame| frame.kind == PING && frame.flags & ACK == 0));
}

#[test]
fn a_connection_without_a_call_is_closed_after_its_idle_time() {
    let server = TestServer::start(Config { max_connection_idle_ms: 300, ..Config::default() });
    let (frames, end) = to_the_end(&mut Http2::connect(&server.addr()));
    assert_closed(&end);
    assert!(frames.iter().any(|frame| frame.kind == GOAWAY));
}

#[test]
fn a_connection_of_age_ends_with_its_calls_after_the_grace() {
    let config = Config {
        max_connection_age_ms: 500,
        max_connection_age_grace_ms: 500,
        ..Config::default()
    };
    let server = TestServer::start(config);
    let client = server.client();
    let (_open, receiver) = client.bulk_create(CallOption::default()).unwrap();
    let status = status(futures::executor::block_on(receiver));
    assert_eq!(status.code(), RpcStatusCode::UNAVAILABLE, "{status:?}");
    let options = CallOption::default().timeout(DEADLINE).wait_for_ready(true);
    client.get_summary(&SummaryRequest::new(), options).unwrap();
}

#[test]
fn pings_in_haste_close_a_connection_and_without_a_limit_they_do_not() {
    let pings = |min_ping_interval_ms: u64| {
        let server = TestServer::start(Config { min_ping_interval_ms, ..Config::default() });
        let mut http2 = Http2::connect(&server.addr());
        // The first is in time; with the fourth the patience of the server ends, and one more would find a
        // closed socket, which drops what the server said last.
        for _ in 0..4 {
            http2.send(&Frame::new(PING, 0, 0, [7; 8])).unwrap();
        }
        let mut answers = 0;
        let goaway = http2.receive_until(|frame| {
            answers += usize::from(frame.kind == PING && frame.flags & ACK != 0);
            frame.kind == GOAWAY || answers == 4
        });
        let goaway = goaway.ok().filter(|frame| frame.kind == GOAWAY);
        (answers, goaway.map(|frame| frame.error_code()))
    };
    assert_eq!(pings(10_000).1, Some(ENHANCE_YOUR_CALM));
    assert_eq!(pings(0), (4, None));
}

#[test]
fn a_call_with_more_metadata_than_the_limit_is_refused() {
    let server = TestServer::start(Config { max_metadata_bytes: 2_048, ..Config::default() });
    let client = server.client();
    let call = |bytes: usize| {
        let mut metadata = MetadataBuilder::new();
        metadata.add_str("note", &"x".repeat(bytes)).unwrap();
        let options = CallOption::default().timeout(DEADLINE).headers(metadata.build());
        client.get_summary(&SummaryRequest::new(), options)
    };
    call(1_000).unwrap();
    assert_status(call(3_000), RpcStatusCode::RESOURCE_EXHAUSTED, "metadata");
}
