//! Streams that are opened and reset: by the peer (CVE-2023-44487), or by the server because of the peer
//! (CVE-2025-8671).

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::beside::{beside, duration};
use crate::common::http2::*;
use crate::common::process::Process;
use crate::common::skip::core_is_patched;
use crate::common::*;

const SUMMARY: &str = "/billing.v1.ReportService/GetSummary";
/// Other hosts, as the server sees it.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// The allowance is what four seconds give.
const FEW: [&str; 2] = ["--max-resets-per-second", "50"];
const BURST: u32 = 200;

/// The frames of a call that never comes to anything.
type Ending = fn(stream: u32) -> Frame;

fn reset(stream: u32) -> Frame {
    Frame::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes())
}

/// DATA with a flag that gRPC does not take: the server resets the stream.
fn made_to_reset(stream: u32) -> Frame {
    Frame::new(DATA, 0x80, stream, [0; 5])
}

/// Calls and their ends, from call number `from` on, in as few bytes as can be.
fn pairs(from: u32, count: u32, ending: Ending) -> Vec<u8> {
    let (first, again) = indexed(request_headers(SUMMARY));
    let mut bytes = Vec::new();
    for call in from..from + count {
        let block = if call == 0 { first.clone() } else { again.clone() };
        Frame::new(HEADERS, END_HEADERS, 2 * call + 1, block).append_to(&mut bytes);
        ending(2 * call + 1).append_to(&mut bytes);
    }
    bytes
}

/// Whether a call is answered on this connection.
fn answered(http2: &mut Http2, stream: u32) -> bool {
    http2
        .open(stream, SUMMARY)
        .and_then(|()| http2.send(&Frame::new(DATA, END_STREAM, stream, [0; 5])))
        .is_ok()
        && http2.receive_until(|frame| frame.kind == HEADERS && frame.stream == stream).is_ok()
}

fn answered_from(peer: Ipv4Addr, addr: &str) -> bool {
    Http2::connect_from(peer, addr).is_ok_and(|mut http2| answered(&mut http2, 1))
}

fn too_many_end_the_connection(ending: Ending) {
    if !core_is_patched() {
        return;
    }
    let server = Process::with_copy(&database(1000), &FEW);
    let mut http2 = Http2::connect_from(ATTACKER, &server.addr).unwrap();
    http2.stream.write_all(&pairs(0, BURST, ending)).unwrap();
    assert!(answered(&mut http2, 2 * BURST + 1), "the allowance may be used at once");

    // What is left of it, and more than comes in the meantime.
    let _ = http2.stream.write_all(&pairs(BURST + 1, 10_000, ending));
    let goaway = http2.receive_until(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(goaway.error_code(), ENHANCE_YOUR_CALM);
    assert!(!answered_from(ATTACKER, &server.addr), "it may not connect again at once");
    assert!(answered_from(NEIGHBOUR, &server.addr), "another may");
    eventually("it may connect again", || answered_from(ATTACKER, &server.addr));
    assert!(server.log().contains("127.0.0.2"), "{}", server.log());
}

#[test]
fn a_peer_that_resets_too_many_streams_is_cut_off_for_a_moment() {
    too_many_end_the_connection(reset);
}

#[test]
fn so_is_one_that_makes_the_server_reset_them() {
    too_many_end_the_connection(made_to_reset);
}

/// What an attack did.
#[derive(Default)]
struct Done {
    resets: AtomicUsize,
    connections: AtomicUsize,
}

/// A connection that opens and ends calls.
struct Attacker {
    http2: Http2,
    calls: u32,
    /// What is made, and how much of it is sent.
    bytes: Vec<u8>,
    sent: usize,
}

impl Attacker {
    fn connect(addr: &str, done: &Done) -> io::Result<Attacker> {
        let http2 = Http2::connect_from(ATTACKER, addr)?;
        http2.stream.set_nonblocking(true)?;
        done.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Attacker { http2, calls: 0, bytes: Vec::new(), sent: 0 })
    }

    /// Sends what the server takes without waiting, up to some.
    fn push(&mut self, done: &Done, ending: Ending) -> io::Result<()> {
        if self.sent == self.bytes.len() {
            done.resets.fetch_add(CALLS_AT_ONCE as usize, Ordering::Relaxed);
            self.bytes = pairs(self.calls, CALLS_AT_ONCE, ending);
            self.calls += CALLS_AT_ONCE;
            self.sent = 0;
        }
        match self.http2.stream.write(&self.bytes[self.sent..]) {
            Ok(bytes) => self.sent += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

const CALLS_AT_ONCE: u32 = 500;

/// Opens and ends calls as fast as the server takes them, and connects again whenever it is cut off. On two
/// threads: each more would only take the processor from the server, which another host's do not.
fn attack(addr: &str, connections: usize, done: &Done, ending: Ending) {
    let until = Instant::now() + duration();
    let some = || {
        let mut attackers: Vec<Option<Attacker>> = (0..connections / 2).map(|_| None).collect();
        while Instant::now() < until {
            for attacker in &mut attackers {
                *attacker = match attacker.take() {
                    None => Attacker::connect(addr, done).ok(),
                    Some(mut open) => open.push(done, ending).is_ok().then_some(open),
                };
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(some);
        scope.spawn(some);
    });
}

/// The same through a proxy.
pub fn attack_through(proxy: &str) {
    let done = Done::default();
    attack(proxy, 4, &done, reset);
    println!("through the proxy: {:?} calls on {:?} connections", done.resets, done.connections);
}

fn nobody_else_notices(name: &str, connections: usize, ending: Ending) {
    let _alone = alone();
    if !core_is_patched() {
        return;
    }
    let server = Process::with_copy(&database(1000), &[]);
    let done = Done::default();
    beside(name, &server, || attack(&server.addr, connections, &done, ending));
    println!("  {:?} calls on {:?} connections", done.resets, done.connections);
}

#[test]
fn nobody_else_notices_resets_on_4_connections() {
    nobody_else_notices("resets on 4 connections", 4, reset);
}

#[test]
fn nobody_else_notices_resets_on_200_connections() {
    nobody_else_notices("resets on 200 connections", 200, reset);
}

#[test]
fn nobody_else_notices_resets_that_the_server_is_made_to_send() {
    nobody_else_notices("made to reset on 4 connections", 4, made_to_reset);
}
