//! A connection that fails on purpose.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::support::{Server, DEADLINE};

/// Forwards connections to a server that may change, and stops the bytes of one direction at a
/// gate until the test has done what it wants to be done meanwhile.
pub struct Proxy {
    pub addr: String,
    pub state: Arc<ProxyState>,
}

pub struct ProxyState {
    server: Mutex<SocketAddr>,
    open: Mutex<Vec<TcpStream>>,
    pub up: Gate,
    pub down: Gate,
}

/// Lets `allowance` bytes through and then holds up the rest.
pub struct Gate {
    allowance: Mutex<u64>,
    changed: Condvar,
}

impl Gate {
    pub fn new(allowance: u64) -> Gate {
        Gate { allowance: Mutex::new(allowance), changed: Condvar::new() }
    }

    pub fn pass(&self, bytes: u64) {
        let allowance = self.allowance.lock().unwrap();
        let mut allowance =
            self.changed.wait_while(allowance, |allowance| *allowance == 0).unwrap();
        *allowance = allowance.saturating_sub(bytes);
        self.changed.notify_all();
    }

    pub fn wait_until_shut(&self) {
        let allowance = self.allowance.lock().unwrap();
        let (allowance, _) = self
            .changed
            .wait_timeout_while(allowance, DEADLINE, |allowance| *allowance > 0)
            .unwrap();
        assert_eq!(*allowance, 0, "too few bytes came");
    }

    pub fn open(&self) {
        *self.allowance.lock().unwrap() = u64::MAX;
        self.changed.notify_all();
    }
}

impl Proxy {
    /// A proxy that lets so many bytes go up to the server and down from it.
    pub fn start(server: &Server, up: u64, down: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let state = Arc::new(ProxyState {
            server: Mutex::new(server.addr.parse().unwrap()),
            open: Mutex::default(),
            up: Gate::new(up),
            down: Gate::new(down),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|client| shared.forward(client))
        });
        Proxy { addr, state }
    }

    /// Cuts every connection, and forwards new ones to `server` without a limit.
    pub fn cut_over_to(&self, server: &Server) {
        *self.state.server.lock().unwrap() = server.addr.parse().unwrap();
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.state.up.open();
        self.state.down.open();
    }
}

impl ProxyState {
    pub fn forward(self: &Arc<ProxyState>, client: TcpStream) {
        // Where there is no server the client sees its connection closed.
        let Ok(server) = TcpStream::connect(*self.server.lock().unwrap()) else { return };
        let copies = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        self.open.lock().unwrap().extend(copies);
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || pump(client, server, &up.up));
        thread::spawn(move || pump(ends.1, ends.0, &down.down));
    }
}

pub fn pump(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        gate.pass(n as u64);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
