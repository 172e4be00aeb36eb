//! Who speaks something else is told of, and cannot fill the log.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use billstream::server::core_is_patched;

use crate::common::process::Process;
use crate::common::*;

/// What each of them sends first.
const STRANGERS: [(&[u8], &str); 3] = [
    (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", "speaks TLS to a port without it"),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "speaks HTTP/1, not gRPC"),
    (b"\x00\x01\x02\x03\x04\x05\x06\x07", "speaks no gRPC"),
];

/// Until the server has closed it.
fn speak(addr: &str, words: &[u8]) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(words).unwrap();
    // OK to fail: it is reset.
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn who_speaks_no_grpc_is_said_once_a_second_with_how_many() {
    if !core_is_patched() {
        return;
    }
    let server = Process::with_copy(&database(1000), &[]);
    for (words, said) in STRANGERS {
        let start = Instant::now();
        while !server.log().contains(said) {
            assert!(start.elapsed() < DEADLINE, "no {said:?}: {}", server.log());
            speak(&server.addr, words);
        }
    }
    let lines = |log: String| log.lines().filter(|line| line.contains(" speaks ")).count();
    let (before, start) = (lines(server.log()), Instant::now());
    for _ in 0..500 {
        speak(&server.addr, STRANGERS[0].0);
    }
    let (more, seconds) = (lines(server.log()) - before, start.elapsed().as_secs() as usize);
    assert!(more <= seconds + 1, "{more} lines in {seconds} s");
}
