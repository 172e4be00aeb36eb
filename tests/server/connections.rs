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

/// How many pings of ten are answered, each sent when the one before has been.
fn answered_pings(min_ping_interval_ms: u64) -> usize {
    let server = TestServer::start(Config { min_ping_interval_ms, ..Config::default() });
    let mut http2 = Http2::connect(&server.addr());
    for answered in 0..10 {
        let sent = http2.send(&Frame::new(PING, 0, 0, [7; 8]));
        let is_answer =
            |frame: &Frame| frame.kind == GOAWAY || (frame.kind == PING && frame.flags & ACK != 0);
        match sent.and_then(|()| http2.receive_until(is_answer)) {
            Ok(frame) if frame.kind == PING => {}
            Ok(goaway) => {
                assert_eq!(goaway.error_code(), ENHANCE_YOUR_CALM);
                return answered;
            }
            // A ping that comes after it was closed has the system drop what the server said last.
            Err(end) => {
                assert!(end.kind() != ErrorKind::WouldBlock, "{end}");
                return answered;
            }
        }
    }
    10
}

#[test]
fn pings_in_haste_close_a_connection_and_without_a_limit_they_do_not() {
    let answered = answered_pings(10_000);
    assert!((3..=5).contains(&answered), "{answered}");
    assert_eq!(answered_pings(0), 10);
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
