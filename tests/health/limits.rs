//! The calls of health and reflection hold up nobody.

use std::time::Duration;

use billstream::proto::health::health_check_response::ServingStatus::*;
use billstream::proto::reflection::server_reflection_request::Message_request::ListServices;
use billstream::proto::report::SummaryRequest;
use billstream::Config;
use grpcio::RpcStatusCode;

use crate::client::{options, Asker, CHECK, LIST, V1, V1ALPHA, WATCH};
use crate::common::http2::{Frame, Http2, ACK, END_STREAM, HEADERS, PING};
use crate::common::process::Process;
use crate::common::*;

const CALLS: usize = 1_000;
const CONNECTIONS: usize = 20;

#[test]
fn half_open_calls_keep_nobody_out() {
    let _alone = alone();
    let flags = ["--max-service-streams", "16", "--cq-threads", "1"];
    let mut server = Process::with_copy(&database(1000), &flags);
    let methods = [CHECK, LIST, WATCH, V1, V1ALPHA];
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Http2::connect(&server.addr)).collect();
    for call in 0..CALLS {
        let stream = 2 * (call / CONNECTIONS) as u32 + 1;
        connections[call % CONNECTIONS].open(stream, methods[call / CONNECTIONS % 5]).unwrap();
    }
    // Each connection answers this when it has read what was before it.
    for http2 in &mut connections {
        http2.send(&Frame::new(PING, 0, 0, [7; 8])).unwrap();
        http2.receive_until(|frame| frame.kind == PING && frame.flags & ACK != 0).unwrap();
    }
    let asker = Asker::new(&server.addr);
    assert_eq!(asker.check("").unwrap(), SERVING);
    assert_eq!(asker.watch("").next().unwrap(), SERVING);
    asker.reflect(V1, [Some(ListServices(String::new()))]).unwrap();
    let client = billstream::client::Stub::new(&server.addr);
    assert_eq!(client.get_summary(&SummaryRequest::new(), options()).unwrap().invoice_count, 1000);
    drop((client, asker));
    let stop = server.stop();
    println!("{CALLS} half-open calls of health and reflection: SIGTERM ends in {stop:?}");
    assert!(stop < Duration::from_secs(3), "{stop:?}");
}

#[test]
fn a_half_open_call_ends_in_time() {
    let server = TestServer::start(Config { first_message_timeout_ms: 100, ..Config::default() });
    for method in [CHECK, LIST, WATCH, V1, V1ALPHA] {
        let mut http2 = Http2::connect(&server.addr());
        http2.open(1, method).unwrap();
        let is_end = |frame: &Frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0;
        let end = http2.receive_until(is_end).unwrap();
        assert_eq!(end.grpc_status(), Some(4), "{method}");
    }
}

#[test]
fn a_connection_has_its_part_of_the_watches_and_one_that_ends_makes_room() {
    // Two for each connection.
    let server = TestServer::start(Config { max_service_streams: 32, ..Config::default() });
    let asker = Asker::new(&server.addr());
    let open = || {
        let mut watch = asker.watch("");
        assert_eq!(watch.next().unwrap(), SERVING);
        watch
    };
    let (_first, second) = (open(), open());
    let refused = asker.watch("").next();
    assert_status(refused, RpcStatusCode::RESOURCE_EXHAUSTED, "2 streams of this connection");
    let other = Asker::new(&server.addr());
    assert_eq!(other.watch("").next().unwrap(), SERVING);
    // Cancelled.
    drop(second);
    eventually("its place is free", || asker.watch("").next().is_ok());
    // Reflection has places of its own.
    asker.reflect(V1, [Some(ListServices(String::new()))]).unwrap();
}

#[test]
fn watches_are_bounded_over_all_connections() {
    let server = TestServer::start(Config { max_service_streams: 3, ..Config::default() });
    let askers: Vec<_> = (0..4).map(|_| Asker::new(&server.addr())).collect();
    let _open: Vec<_> = askers[..3]
        .iter()
        .map(|asker| {
            let mut watch = asker.watch("");
            assert_eq!(watch.next().unwrap(), SERVING);
            watch
        })
        .collect();
    let refused = askers[3].watch("").next();
    assert_status(refused, RpcStatusCode::RESOURCE_EXHAUSTED, "and 3 of all");
}

#[test]
fn watches_hear_of_a_stop_and_do_not_delay_it() {
    let _alone = alone();
    // Between the two that a Watch hears is the pause: grpcio drops a message that comes together with an error.
    let mut server = Process::with_copy(&database(1000), &["--lame-duck-ms", "300"]);
    let asker = Asker::new(&server.addr);
    let mut watches: Vec<_> = (0..5).map(|_| asker.watch("")).collect();
    for watch in &mut watches {
        assert_eq!(watch.next().unwrap(), SERVING);
    }
    let hear = |mut watch: crate::client::Watch| {
        assert_eq!(watch.next().unwrap(), NOT_SERVING);
        assert_status(watch.next(), RpcStatusCode::UNAVAILABLE, "shutting down");
    };
    let stop = std::thread::scope(|scope| {
        watches.into_iter().for_each(|watch| drop(scope.spawn(move || hear(watch))));
        server.stop()
    });
    println!("5 Watches: SIGTERM ends in {stop:?}");
    assert!(stop < Duration::from_secs(1), "{stop:?}");
}
