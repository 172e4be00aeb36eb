//! A TCP proxy on loopback that fails on purpose: it cuts connections, swallows answers, and stops
//! forwarding requests at a chosen byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a pump may take to notice a cut.
const NOTICE: Duration = Duration::from_millis(1);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// RST: what was under way is lost.
    Reset,
    /// FIN: what was forwarded arrives, and then the end of the connection.
    Finish,
}

/// Forwards every connection to one server, until it is cut or dropped.
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

struct State {
    target: SocketAddr,
    is_closed: AtomicBool,
    /// Bytes of requests that may still be forwarded.
    requests_left: AtomicU64,
    swallows_answers: AtomicBool,
    /// Bytes of answers that were forwarded.
    answered: AtomicU64,
    links: Mutex<Vec<Link>>,
}

/// One connection: both sockets, and the threads that move bytes between them.
struct Link {
    ends: Arc<Ends>,
    pumps: Vec<JoinHandle<()>>,
}

struct Ends {
    client: TcpStream,
    server: TcpStream,
    is_cut: AtomicBool,
}

impl Proxy {
    pub fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target,
            is_closed: AtomicBool::new(false),
            requests_left: AtomicU64::new(u64::MAX),
            swallows_answers: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            links: Mutex::default(),
        });
        let for_thread = Arc::clone(&state);
        let acceptor = std::thread::spawn(move || accept(&listener, &for_thread));
        Proxy { addr, state, acceptor: Some(acceptor) }
    }

    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// From here on only `bytes` more bytes of requests get through.
    pub fn forward_at_most(&self, bytes: u64) {
        self.state.requests_left.store(bytes, Ordering::SeqCst);
    }

    /// Whether the limit of [`Proxy::forward_at_most`] is reached.
    pub fn is_holding(&self) -> bool {
        self.state.requests_left.load(Ordering::SeqCst) == 0
    }

    /// From here on nothing that the server sends gets through.
    pub fn swallow_answers(&self) {
        self.state.swallows_answers.store(true, Ordering::SeqCst);
    }

    /// Bytes that clients got from the server.
    pub fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::SeqCst)
    }

    /// Ends the open connections on both sides. New ones are accepted.
    pub fn cut(&self, how: Cut) {
        let links = std::mem::take(&mut *self.state.links.lock().unwrap());
        links.iter().for_each(|link| link.ends.is_cut.store(true, Ordering::SeqCst));
        for link in links {
            link.pumps.into_iter().for_each(|pump| pump.join().unwrap());
            // Dropped here, the last owner of both sockets.
            link.ends.close(how);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.cut(Cut::Finish);
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.is_closed.load(Ordering::SeqCst) {
            return;
        }
        // A server that was killed refuses, and so does the proxy.
        let (Ok(client), Ok(server)) = (client, TcpStream::connect(state.target)) else { continue };
        for socket in [&client, &server] {
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(NOTICE)).unwrap();
            socket.set_write_timeout(Some(NOTICE)).unwrap();
        }
        let ends = Arc::new(Ends { client, server, is_cut: AtomicBool::new(false) });
        let (up, down) =
            ((Arc::clone(&ends), Arc::clone(state)), (Arc::clone(&ends), Arc::clone(state)));
        let pumps = vec![
            std::thread::spawn(move || requests(&up.0, &up.1)),
            std::thread::spawn(move || answers(&down.0, &down.1)),
        ];
        state.links.lock().unwrap().push(Link { ends, pumps });
    }
}

impl Ends {
    fn close(&self, how: Cut) {
        match how {
            Cut::Reset => [&self.client, &self.server].into_iter().for_each(reset_on_close),
            Cut::Finish => {
                // Either side may have gone already.
                let _ = self.client.shutdown(Shutdown::Both);
                let _ = self.server.shutdown(Shutdown::Both);
            }
        }
    }

    /// The next bytes; `None` at the end of the connection, or when it was cut.
    fn read<'a>(&self, mut from: &TcpStream, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        while !self.is_cut.load(Ordering::SeqCst) {
            match from.read(buffer) {
                Ok(0) => return None,
                Ok(n) => return Some(&buffer[..n]),
                Err(e) if is_timeout(&e) => continue,
                Err(_) => return None,
            }
        }
        None
    }

    /// One side has closed, so the other gets to know. A cut ends both in its own way.
    fn pass_end_to(&self, socket: &TcpStream) {
        if !self.is_cut.load(Ordering::SeqCst) {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Whether all of it was written.
    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if is_timeout(&e) && !self.is_cut.load(Ordering::SeqCst) => continue,
                Err(_) => return false,
            }
        }
        true
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// From the client to the server.
fn requests(ends: &Ends, state: &State) {
    let mut buffer = vec![0; 16 << 10];
    while let Some(bytes) = ends.read(&ends.client, &mut buffer) {
        let left = &state.requests_left;
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            Some(if left == u64::MAX { left } else { left.saturating_sub(bytes.len() as u64) })
        });
        // OK because the closure always gives a value.
        let allowed = before.unwrap().min(bytes.len() as u64) as usize;
        if !ends.write(&ends.server, &bytes[..allowed]) {
            break;
        }
    }
    ends.pass_end_to(&ends.server);
}

/// From the server to the client.
fn answers(ends: &Ends, state: &State) {
    let mut buffer = vec![0; 16 << 10];
    while let Some(bytes) = ends.read(&ends.server, &mut buffer) {
        if state.swallows_answers.load(Ordering::SeqCst) {
            continue;
        }
        if !ends.write(&ends.client, bytes) {
            break;
        }
        state.answered.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    }
    ends.pass_end_to(&ends.client);
}

/// Makes the close of `socket` a RST: SO_LINGER of zero seconds, which std does not offer yet.
#[cfg(target_os = "linux")]
fn reset_on_close(socket: &TcpStream) {
    use std::os::fd::AsRawFd;

    #[repr(C)]
    struct Linger {
        is_on: i32,
        seconds: i32,
    }
    extern "C" {
        fn setsockopt(fd: i32, level: i32, name: i32, value: *const Linger, length: u32) -> i32;
    }
    const SOL_SOCKET: i32 = 1;
    const SO_LINGER: i32 = 13;
    let linger = Linger { is_on: 1, seconds: 0 };
    // SAFETY: the descriptor is open, and the option is a `struct linger` of this length.
    let result = unsafe {
        setsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_LINGER, &linger, size_of::<Linger>() as u32)
    };
    assert_eq!(result, 0, "SO_LINGER");
}

#[cfg(not(target_os = "linux"))]
fn reset_on_close(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both);
}
