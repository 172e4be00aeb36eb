//! Limits that hold from the first byte of a connection: a peer that never acknowledges SETTINGS has them too.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::beside::{beside, duration};
use crate::common::http2::*;
use crate::common::process::Process;
use crate::common::skip::core_is_patched;
use crate::common::*;

/// Another host, as the server sees it.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SUMMARY: &str = "/billing.v1.ReportService/GetSummary";
/// What is above `max_streams_per_connection` for unary calls.
const ROOM: u32 = 1024;

#[test]
fn a_stream_past_the_limit_is_refused_before_settings_are_acknowledged() {
    if !core_is_patched() {
        return;
    }
    let server = Process::with_copy(&database(1000), &["--max-streams-per-connection", "1"]);
    let mut http2 = Http2::connect(&server.addr);
    for call in 0..ROOM + 101 {
        http2.open(2 * call + 1, SUMMARY).unwrap();
    }
    for call in ROOM + 1..ROOM + 101 {
        let refused = http2.receive_until(|frame| frame.kind == RST_STREAM).unwrap();
        assert_eq!((refused.stream, refused.error_code()), (2 * call + 1, REFUSED_STREAM));
    }
    // The others go on, and so does the connection.
    http2.send(&Frame::new(PING, 0, 0, [7; 8])).unwrap();
    let next = http2.receive_until(|frame| frame.kind == RST_STREAM || frame.kind == PING);
    assert_eq!(next.unwrap().kind, PING);
}

#[test]
fn metadata_past_the_limit_ends_the_call_before_settings_are_acknowledged() {
    if !core_is_patched() {
        return;
    }
    let server = Process::with_copy(&database(1000), &[]);
    let mut http2 = Http2::connect(&server.addr);
    let much = "m".repeat(1 << 20);
    let headers = request_headers(SUMMARY).into_iter().chain([("x-much", &much[..])]);
    let block = literals(headers);
    let mut parts = block.chunks(16_384).peekable();
    http2.send(&Frame::new(HEADERS, 0, 1, parts.next().unwrap())).unwrap();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
        http2.send(&Frame::new(CONTINUATION, flags, 1, part)).unwrap();
    }
    http2.send(&Frame::new(DATA, END_STREAM, 1, [0; 5])).unwrap();
    let end = http2.receive_until(|frame| frame.stream == 1).unwrap();
    let refused = match end.kind {
        HEADERS => end.grpc_status() == Some(8),
        kind => kind == RST_STREAM,
    };
    assert!(refused, "frame {} {:?}", end.kind, end.payload);
    http2.call(3, SUMMARY);
    http2.receive_until(|frame| frame.stream == 3 && frame.kind == DATA).unwrap();
}

#[test]
fn nobody_else_notices_a_hundred_thousand_open_streams() {
    let _alone = alone();
    if !core_is_patched() {
        return;
    }
    let server = Process::with_copy(&database(1000), &[]);
    beside("100,000 streams on one connection", &server, || {
        let mut http2 = Http2::connect_from(ATTACKER, &server.addr).unwrap();
        http2.stream.set_read_timeout(Some(duration())).unwrap();
        // Until it is cut off: each stream past the limit counts as a reset.
        let opened =
            (0..100_000).take_while(|call| http2.open(2 * call + 1, SUMMARY).is_ok()).count();
        let goaway =
            http2.receive_until(|frame| frame.kind == GOAWAY).map(|frame| frame.error_code());
        println!("  {opened} streams were sent; then {goaway:?}");
        std::thread::sleep(Duration::from_millis(200));
    });
}
