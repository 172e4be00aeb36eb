//! Messages that are too large, or not what they say.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::beside::{beside, duration};
use crate::common::http2::*;
use crate::common::process::Process;
use crate::common::skip::{core_is_patched, skip};
use crate::common::*;

const SUMMARY: &str = "/billing.v1.ReportService/GetSummary";
const UPLOAD: &str = "/billing.v1.ReportService/BulkCreate";
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;

/// The flag and length before a message.
fn prefix(compressed: u8, bytes: u32) -> Vec<u8> {
    [&[compressed][..], &bytes.to_be_bytes()].concat()
}

fn status_of_call_1(http2: &mut Http2) -> Option<u32> {
    let trailers =
        http2.receive_until(|frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0);
    trailers.unwrap().grpc_status()
}

#[test]
fn a_message_that_is_too_large_is_refused_when_its_length_is_read() {
    if !core_is_patched() {
        return;
    }
    let server = Process::with_copy(&database(1000), &[]);
    for path in [SUMMARY, UPLOAD] {
        let mut http2 = Http2::connect(&server.addr);
        http2.open(1, path).unwrap();
        // Nothing but the length is sent, ever.
        http2.send(&Frame::new(DATA, 0, 1, prefix(0, (4 << 20) + 1))).unwrap();
        assert_eq!(status_of_call_1(&mut http2), Some(RESOURCE_EXHAUSTED), "{path}");
    }
}

#[test]
fn a_message_of_just_the_size_that_is_allowed_is_waited_for() {
    let server = Process::with_copy(&database(1000), &[]);
    let mut http2 = Http2::connect(&server.addr);
    http2.open(1, SUMMARY).unwrap();
    http2.send(&Frame::new(DATA, 0, 1, prefix(0, 4 << 20))).unwrap();
    // The server wants to read all of it.
    let update = http2.receive_until(|frame| frame.kind == WINDOW_UPDATE && frame.stream == 1);
    assert!(update.is_ok());
}

/// A connection that says a message of 1 GiB, and sends as much of it as the server takes.
fn send_endlessly(addr: &str, until: Instant) -> std::io::Result<()> {
    let mut http2 = Http2::connect_from(std::net::Ipv4Addr::new(127, 0, 0, 2), addr)?;
    http2.open(1, UPLOAD)?;
    http2.send(&Frame::new(DATA, 0, 1, prefix(0, 1 << 30)))?;
    let (mut connection, mut stream) = (DEFAULT_WINDOW as usize - 5, DEFAULT_WINDOW as usize - 5);
    http2.stream.set_read_timeout(Some(duration()))?;
    while Instant::now() < until {
        let bytes = connection.min(stream).min(16_384);
        if bytes > 0 {
            http2.send(&Frame::new(DATA, 0, 1, vec![0; bytes]))?;
            connection -= bytes;
            stream -= bytes;
            continue;
        }
        let frame = http2.receive()?;
        http2.acknowledge(&frame)?;
        match (frame.kind, frame.stream) {
            (WINDOW_UPDATE, 0) => connection += frame.error_code() as usize,
            (WINDOW_UPDATE, _) => stream += frame.error_code() as usize,
            (HEADERS | RST_STREAM, _) => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

/// For every C core: one that does not look at the length is bounded by the quota.
#[test]
fn nobody_else_notices_messages_without_end() {
    let _alone = alone();
    let server = Process::with_copy(&database(1000), &[]);
    beside("messages that say 1 GiB on 4 connections", &server, || {
        let until = Instant::now() + duration();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while Instant::now() < until && send_endlessly(&server.addr, until).is_ok() {}
                });
            }
        });
    });
}

/// Zeros, by the program: a thousandth of their size.
fn gzip(bytes: usize) -> Option<Vec<u8>> {
    let mut gzip =
        Command::new("gzip").arg("-9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut zeros = gzip.stdin.take()?;
    let writer = std::thread::spawn(move || zeros.write_all(&vec![0; bytes]));
    let output = gzip.wait_with_output().ok()?;
    writer.join().unwrap().unwrap();
    Some(output.stdout)
}

/// For every C core.
#[test]
fn a_compressed_message_is_not_inflated() {
    let _alone = alone();
    let Some(bomb) = gzip(48 << 20) else {
        return skip("there is no gzip");
    };
    assert!(bomb.len() < 60_000, "it is within the windows of HTTP/2");
    // Also where exports are sent in gzip.
    let flags = ["--max-message-bytes", "1073741824", "--export-compression-level", "6"];
    let server = Process::with_copy(&database(1000), &flags);
    let before = server.rss_mib();
    let mut http2 = Http2::connect(&server.addr);
    let headers = request_headers(SUMMARY).into_iter().chain([("grpc-encoding", "gzip")]);
    http2.send(&Frame::new(HEADERS, END_HEADERS, 1, literals(headers))).unwrap();
    let message = [prefix(1, bomb.len() as u32), bomb].concat();
    for part in message.chunks(16_384) {
        http2.send(&Frame::new(DATA, 0, 1, part)).unwrap();
    }
    http2.send(&Frame::new(DATA, END_STREAM, 1, [])).unwrap();
    assert_eq!(status_of_call_1(&mut http2), Some(UNIMPLEMENTED));
    assert!(server.peak_rss_mib() < before + 32, "{} MiB", server.peak_rss_mib());
}
