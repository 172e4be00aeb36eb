//! The HTTP of the operator, which shows what the server does and changes nothing.
//!
//! | module | what it is |
//! |---|---|
//! | `page.html` | the page at `/`: it asks for the status once a second |
//! | `http` | requests and answers: their limits on size and time |
//! | `metrics` | `/metrics`, for Prometheus |
//! | `status` | `/status.json`, for the page |
//! | `now`, `process` | what both read when they are asked |

mod http;
pub mod metrics;
mod now;
mod process;
mod status;

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, Builder, JoinHandle};
use std::time::Duration;

use crate::calls::auth::Gate;
use crate::calls::Core;
use crate::error::{Error, Result};
use crate::grpc::channelz;
use crate::tokens::Right;
use http::{Request, Response};

/// Threads that answer: one serves while others wait for clients that are slow.
const THREADS: usize = 4;
/// Between two tries to take a connection, where the process has no file left for it.
const PAUSE: Duration = Duration::from_millis(100);

/// The listener, until this is dropped.
pub struct Admin {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    core: Arc<Core>,
    /// Asked of who is not on loopback.
    gate: Option<Arc<Gate>>,
    /// Where calls come in.
    listen: Vec<String>,
    listener: TcpListener,
    is_closed: AtomicBool,
}

impl Admin {
    /// Listens where `admin_listen` says, if it does. `listen` is where calls come in.
    pub fn start(
        core: &Arc<Core>,
        gate: &Option<Arc<Gate>>,
        listen: Vec<String>,
    ) -> Result<Option<Admin>> {
        let admin_listen = &core.config.admin_listen;
        if admin_listen.is_empty() {
            return Ok(None);
        }
        let listener = bind(admin_listen, gate.is_some())?;
        let unusable = |e| Error::Unusable(format!("admin_listen: {admin_listen:?}: {e}"));
        let address = listener.local_addr().map_err(unusable)?;
        let is_closed = AtomicBool::new(false);
        let (core, gate) = (Arc::clone(core), gate.clone());
        let shared = Arc::new(Shared { core, gate, listen, listener, is_closed });
        let mut admin = Admin { address, shared: Arc::clone(&shared), threads: Vec::new() };
        for i in 0..THREADS {
            let (shared, thread) = (Arc::clone(&shared), Builder::new());
            let thread = thread.name(format!("billstream-admin-{i}")).spawn(move || shared.run());
            admin.threads.push(thread.map_err(unusable)?);
        }
        Ok(Some(admin))
    }

    /// With the real port where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        // Each thread that waits for a connection gets one.
        let connect = |_: &JoinHandle<()>| TcpStream::connect_timeout(&self.address, PAUSE).ok();
        let _woken: Vec<_> = self.threads.iter().map(connect).collect();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the admin listener panicked");
            }
        }
    }
}

/// Listens; elsewhere than on loopback only where tokens are asked for: what is shown has the addresses of clients
/// in it.
fn bind(admin_listen: &str, has_tokens: bool) -> Result<TcpListener> {
    let why_not = |why: &dyn std::fmt::Display| format!("admin_listen: {admin_listen:?}: {why}");
    let addresses = admin_listen.to_socket_addrs();
    let addresses: Vec<_> = addresses.map_err(|e| Error::Unusable(why_not(&e)))?.collect();
    if !has_tokens && !addresses.iter().all(|address| address.ip().is_loopback()) {
        let why =
            "without tokens it is for 127.0.0.1 or [::1] alone: whoever can reach it may read it";
        return Err(Error::Unusable(why_not(&why)));
    }
    if addresses.iter().any(|address| !address.ip().to_canonical().is_loopback()) {
        log::warn!(
            "admin_listen: {admin_listen} is plain HTTP: its tokens, which have the right admin, can be read on the \
             way; put a proxy with TLS before it"
        );
    }
    TcpListener::bind(&addresses[..]).map_err(|e| Error::Unavailable(why_not(&e)))
}

impl Shared {
    fn run(&self) {
        while !self.is_closed() {
            let served = self.listener.accept().map(|(stream, from)| {
                let answer = |request: &Request| self.answer(request, from);
                // An error is a client that is gone, or that is too slow.
                let _ = http::serve(stream, || self.is_closed(), answer);
            });
            if served.is_err() {
                sleep(PAUSE);
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    fn answer(&self, request: &Request, from: SocketAddr) -> Response {
        if let Err(refusal) = self.let_in(request, from) {
            return refusal;
        }
        match &request.path[..] {
            "/" => Response::html(include_str!("page.html")),
            "/metrics" => Response::new(200, METRICS, metrics::text(&self.core)),
            "/status.json" => Response::json(status::json(&self.core, &self.listen)),
            "/livez" => Response::text(200, "ok\n"),
            "/readyz" => self.readyz(),
            path => path.strip_prefix("/channelz").and_then(channelz::json).map_or_else(
                || Response::text(404, format!("not here: there are {PATHS}\n")),
                Response::json,
            ),
        }
    }

    /// Whether it may be answered. A browser on this machine may be led here by a page of elsewhere, whose name the
    /// Host then has; from elsewhere a token is asked for, which no such page has.
    fn let_in(&self, request: &Request, from: SocketAddr) -> std::result::Result<(), Response> {
        // For whoever starts and chooses servers; and the page, which has nothing in it before it was given a token.
        let is_open = matches!(&request.path[..], "/" | "/livez" | "/readyz");
        let gate = self.gate.as_ref().filter(|_| !from.ip().to_canonical().is_loopback());
        match gate {
            Some(_) if is_open => Ok(()),
            None if http::is_foreign(request) => {
                Err(Response::text(403, "the Host of the request is not one of loopback\n"))
            }
            None => Ok(()),
            Some(gate) => {
                let token = request.authorization.as_deref();
                gate.authorize_one(token, Right::Admin, &from.to_string()).map_err(|error| {
                    let code = if matches!(error, Error::PermissionDenied(_)) { 403 } else { 401 };
                    Response::text(code, format!("{error}\n"))
                })
            }
        }
    }

    fn readyz(&self) -> Response {
        match &self.core.not_ready()[..] {
            [] => Response::text(200, "ok\n"),
            reasons => Response::text(503, reasons.join("\n") + "\n"),
        }
    }
}

/// The text format of Prometheus, in the version that the whole of it has.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const PATHS: &str = "/, /metrics, /livez, /readyz, /status.json and /channelz";
