//! The frames of ExportInvoices, seen by an HTTP/2 client that is written out here: a library would
//! not show them.

use std::io::{Read, Write};
use std::net::TcpStream;

use billstream::Config;

use crate::common::*;

const ROWS: usize = 1_000_000;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The window of HTTP/2 for a peer that says nothing, and for every connection at its start.
const DEFAULT_WINDOW: u32 = 65_535;

/// One connection with one call.
struct Http2 {
    stream: TcpStream,
}

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Http2 {
    /// Connects with windows of `window` bytes.
    fn connect(addr: &str, window: u32) -> Http2 {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut http2 = Http2 { stream };
        http2.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE is 4.
        let mut settings = vec![0, 4];
        settings.extend(window.to_be_bytes());
        http2.send(SETTINGS, 0, 0, &settings);
        if window > DEFAULT_WINDOW {
            http2.update_window(0, window - DEFAULT_WINDOW);
        }
        http2
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).unwrap();
    }

    fn update_window(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// Sends a request with an empty message as stream 1.
    fn call(&mut self, path: &str) {
        let headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let mut block = Vec::new();
        for (name, value) in headers {
            // HPACK: literal, not indexed, a new name; neither is Huffman-coded.
            block.push(0);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, 1, &block);
        self.send(DATA, END_STREAM, 1, &[0; 5]);
    }

    fn receive(&mut self) -> Frame {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Frame { kind: head[3], flags: head[4], payload }
    }

    /// The payloads of all DATA frames of the call, given back to the windows when half of one is
    /// taken, as the common clients do.
    fn data(&mut self, window: u32, mut each: impl FnMut(&[u8])) {
        let mut taken = 0;
        loop {
            let frame = self.receive();
            match frame.kind {
                DATA => {
                    each(&frame.payload);
                    taken += frame.payload.len() as u32;
                    if taken >= window / 2 {
                        self.update_window(0, taken);
                        self.update_window(1, taken);
                        taken = 0;
                    }
                }
                HEADERS if frame.flags & END_STREAM != 0 => return,
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload),
                HEADERS | SETTINGS | PING | WINDOW_UPDATE => {}
                other => panic!("a frame of type {other}: {:?}", frame.payload),
            }
        }
    }
}

/// Counts the messages in a stream of bytes that is cut anywhere.
#[derive(Default)]
struct Messages {
    count: usize,
    /// What is there of the flag and length before a message.
    prefix: Vec<u8>,
    /// What is missing of the message.
    missing: usize,
}

impl Messages {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.missing == 0 {
                self.prefix.push(bytes[0]);
                bytes = &bytes[1..];
                if let Ok([_, length @ ..]) = <[u8; 5]>::try_from(&self.prefix[..]) {
                    self.missing = u32::from_be_bytes(length) as usize;
                    self.count += 1;
                    self.prefix.clear();
                }
            } else {
                let part = self.missing.min(bytes.len());
                self.missing -= part;
                bytes = &bytes[part..];
            }
        }
    }
}

/// The sizes of the DATA frames of an export of all rows.
fn frames(addr: &str, window: u32) -> Vec<usize> {
    let mut http2 = Http2::connect(addr, window);
    http2.call("/billing.v1.ReportService/ExportInvoices");
    let (mut sizes, mut messages) = (Vec::new(), Messages::default());
    http2.data(window, |payload| {
        sizes.push(payload.len());
        messages.take(payload);
    });
    assert_eq!((messages.count, messages.missing), (ROWS, 0));
    sizes
}

fn print_histogram(sizes: &[usize]) {
    let mut from = 0;
    for until in [64, 256, 1024, 4096, 16_384, usize::MAX] {
        let count = sizes.iter().filter(|size| (from..until).contains(*size)).count();
        println!("  {from:>6} bytes and more: {count}");
        from = until;
    }
}

fn assert_large(window: u32) {
    let server = TestServer::with_copy(&database(ROWS as u64), Config::default());
    let sizes = frames(&server.addr(), window);
    let average = sizes.iter().sum::<usize>() / sizes.len();
    println!("window {window}: {} DATA frames, {average} bytes on average", sizes.len());
    print_histogram(&sizes);
    let small = |(_, size): &(usize, &usize)| **size < 256;
    let small: Vec<_> = sizes.iter().enumerate().filter(small).collect();
    println!("  under 256 bytes, with their places: {:?}", &small[..small.len().min(20)]);
    assert!(average >= 4096, "{average}");
    let in_between = |place: usize| place >= 4 && place + 1 < sizes.len();
    assert!(!small.iter().any(|(place, _)| in_between(*place)), "{} are small", small.len());
}

#[test]
fn frames_are_large_with_a_large_window() {
    let _alone = alone();
    assert_large(16 << 20);
}

#[test]
fn frames_are_large_with_the_window_of_http2() {
    let _alone = alone();
    assert_large(DEFAULT_WINDOW);
}
