//! The frames of ExportInvoices.

use billstream::Config;

use crate::common::http2::*;
use crate::common::*;

const ROWS: usize = 1_000_000;

/// The payloads of all DATA frames of call 1, given back to the windows when half of one is
/// taken, as the common clients do.
fn data(http2: &mut Http2, window: u32, mut each: impl FnMut(&[u8])) {
    let mut taken = 0;
    loop {
        let frame = http2.receive().unwrap();
        match frame.kind {
            DATA => {
                each(&frame.payload);
                taken += frame.payload.len() as u32;
                if taken >= window / 2 {
                    http2.update_window(0, taken);
                    http2.update_window(1, taken);
                    taken = 0;
                }
            }
            HEADERS if frame.flags & END_STREAM != 0 => return,
            HEADERS | SETTINGS | PING | WINDOW_UPDATE => http2.acknowledge(&frame).unwrap(),
            other => panic!("a frame of type {other}: {:?}", frame.payload),
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
    let mut http2 = Http2::connect_with_window(addr, window);
    http2.call(1, "/billing.v1.ReportService/ExportInvoices");
    let (mut sizes, mut messages) = (Vec::new(), Messages::default());
    data(&mut http2, window, |payload| {
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
