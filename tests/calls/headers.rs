//! When the headers of a response come: grpcio sends them with the first message, and has no way to send them
//! before it. A client that waits for them before it sends anything (tonic's `reconcile(..).await` with a
//! stream that has nothing yet) waits for its own first event.

use billstream::Config;

use crate::common::http2::*;
use crate::common::*;

const SUMMARY: &str = "/billing.v1.ReportService/GetSummary";

/// Another call that is opened later is answered before a single frame of this one comes.
fn assert_with_the_first_acknowledgement(method: &str) {
    let server = TestServer::start(Config::default());
    let mut http2 = Http2::connect(&server.addr());
    http2.open(1, method).unwrap();
    // The calls of a connection are taken in their order.
    http2.call(3, SUMMARY);
    // (A WINDOW_UPDATE of either is no answer.)
    let is_answer = |frame: &Frame| frame.stream != 0 && frame.kind <= HEADERS;
    let other = http2.receive_until(is_answer).unwrap();
    assert_eq!(other.stream, 3, "{method}: nothing comes before the first message was sent");

    // An empty message of either stream is acknowledged.
    http2.send(&Frame::new(DATA, 0, 1, [0; 5])).unwrap();
    let mut answer = || http2.receive_until(|frame| is_answer(frame) && frame.stream == 1);
    let first = answer().unwrap();
    assert_eq!((first.kind, first.flags & END_STREAM), (HEADERS, 0), "{method}");
    assert_eq!(answer().unwrap().kind, DATA, "{method}: the acknowledgement");
}

#[test]
fn they_come_with_the_first_acknowledgement() {
    assert_with_the_first_acknowledgement("/billing.v1.ReportService/Reconcile");
    assert_with_the_first_acknowledgement("/billing.v1.ReportService/ReconcileBatches");
}
