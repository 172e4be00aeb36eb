//! The client's own deadline: the client ends the call, and the server the work.

use std::time::{Duration, Instant};

use billstream::Config;

use crate::common::http2::*;
use crate::common::skip::skip;
use crate::common::*;
use crate::python;
use crate::variable;

const EXPORT: &str = "/billing.v1.ReportService/ExportInvoiceBatches";

/// What of the messages in `bytes` is left over after the last whole one.
fn part_of_a_message(mut bytes: &[u8]) -> usize {
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        match bytes.get(5 + length..) {
            Some(rest) => bytes = rest,
            None => break,
        }
    }
    bytes.len()
}

/// A client that says its deadline and does nothing at it, so that all that comes is the server's. It takes
/// what fits into the windows of HTTP/2: the end of the last message does not.
#[test]
fn the_server_does_not_cut_a_message_at_the_deadline() {
    let server = TestServer::with_copy(&database(100_000), Config::default());
    let mut http2 = Http2::connect(&server.addr());
    let headers = request_headers(EXPORT).into_iter().chain([("grpc-timeout", "300m")]);
    http2.send(&Frame::new(HEADERS, END_HEADERS, 1, literals(headers))).unwrap();
    let start = Instant::now();
    http2.send(&Frame::new(DATA, END_STREAM, 1, [0; 5])).unwrap();
    let mut bytes = Vec::new();
    loop {
        let frame = http2.receive_until(|frame| frame.stream == 1).unwrap();
        match frame.kind {
            DATA => bytes.extend(frame.payload),
            HEADERS if frame.flags & END_STREAM == 0 => {}
            _ => break,
        }
    }
    let took = start.elapsed();
    assert!(part_of_a_message(&bytes) > 0, "the windows end in the middle of a message");
    // By then every client has ended the call itself.
    println!("a client that takes nothing is given up {took:?} after it set a deadline of 300 ms");
    assert!(took > Duration::from_millis(800), "{took:?}");
    eventually("nothing is left of it", || {
        server.get().streams_open() == 0 && server.get().connections_in_use() == 0
    });
}

/// The same with a client that takes all: it is told, and where to go on.
#[test]
fn work_ends_soon_after_the_deadline() {
    let server = TestServer::with_copy(&database(100_000), Config::default());
    let mut http2 = Http2::connect(&server.addr());
    let headers = request_headers("/billing.v1.ReportService/Reconcile");
    let headers = headers.into_iter().chain([("grpc-timeout", "300m")]);
    http2.send(&Frame::new(HEADERS, END_HEADERS, 1, literals(headers))).unwrap();
    http2.send(&Frame::new(DATA, 0, 1, [0; 5])).unwrap();
    let is_end = |frame: &Frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0;
    let end = http2.receive_until(is_end).unwrap();
    assert_eq!(end.grpc_status(), Some(DEADLINE_EXCEEDED));
    let text = String::from_utf8_lossy(&end.payload).into_owned();
    assert!(text.contains("deadline passed"), "{text}");
    within(Duration::from_secs(20), "nothing is left", || server.get().streams_open() == 0);
}

const DEADLINE_EXCEEDED: u32 = 4;

#[test]
fn python_sees_its_deadline_every_time() {
    let python = match python::ready() {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let server = TestServer::with_copy(&database(1_000_000), Config::default());
    let calls = variable("BILLSTREAM_TEST_DEADLINES", 30).to_string();
    let output = python.script("deadline.py").args([server.addr(), calls]).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "deadline.py ended with {}", output.status);
}
