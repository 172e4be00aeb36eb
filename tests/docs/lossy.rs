//! A TCP proxy on loopback that loses two connections, at places that the pages of docs/clients go through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

/// In the middle of the first export: uploads and summaries are answered with less.
const ANSWERS_OF_THE_FIRST: usize = 200 << 10;
/// In the middle of the payments: whatever comes before on this connection asks with less.
const REQUESTS_OF_THE_SECOND: usize = 100 << 10;

pub struct Lossy {
    pub addr: SocketAddr,
    /// Connections that were lost so far.
    pub lost: Arc<AtomicUsize>,
}

impl Lossy {
    /// Forwards to `server` until the process ends.
    pub fn start(server: SocketAddr) -> Lossy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let lost = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lost);
        thread::spawn(move || {
            let mut limits =
                [(usize::MAX, ANSWERS_OF_THE_FIRST), (REQUESTS_OF_THE_SECOND, usize::MAX)]
                    .into_iter()
                    .chain(std::iter::repeat((usize::MAX, usize::MAX)));
            for client in listener.incoming() {
                let (requests, answers) = limits.next().unwrap();
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                forward(&client, &server, requests, &count);
                forward(&server, &client, answers, &count);
            }
        });
        Lossy { addr, lost }
    }
}

/// Moves bytes on a thread of its own; past `limit` the connection is lost.
fn forward(from: &TcpStream, to: &TcpStream, limit: usize, lost: &Arc<AtomicUsize>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let lost = Arc::clone(lost);
    thread::spawn(move || {
        let mut left = limit;
        let mut buffer = vec![0; 16 << 10];
        // An error is the end of the connection too.
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if read > left {
                lost.fetch_add(1, Ordering::SeqCst);
                break;
            }
            left -= if limit == usize::MAX { 0 } else { read };
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
