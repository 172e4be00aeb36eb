//! The server: what a program starts, asks for its addresses, and stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use crate::admin::{self, Admin};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::grpc::Shared;
use crate::metrics::Metrics;

mod builder;
mod channel;
mod core_log;
mod health;
mod listeners;
mod patches;
mod stop;
mod threads;
mod tls;
mod tokens;
mod watch;

pub use crate::store::{backup, check, restore, CheckReport, Restored};
pub use builder::Builder;
#[doc(hidden)]
pub use channel::channel;
pub use core_log::{core_line, foreign_peers, take_core_log, ForeignPeers, CORE_LOG};
pub use health::Health;
pub use listeners::Address;
pub use patches::core_is_patched;
#[doc(hidden)]
pub use patches::UNPATCHED;
pub use stop::Stopped;

use health::Monitor;
use stop::Running;

/// Call slots a completion queue offers at once. With the 1,024 of grpcio a stop can take over 12
/// seconds (tikv/grpc-rs#674); each slot is offered anew as soon as it is taken.
#[doc(hidden)]
pub const SLOTS_PER_CQ: usize = 32;

/// A running server. It serves until it is shut down; dropping it shuts it down too.
///
/// It needs no async runtime, sets no logger and no signal handler, and never ends the process.
/// Several may run in one program, each with its own database.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use billstream::{Config, Server};
///
/// let db = dir.path().join("bills.db");
/// let server = Server::start(Config { db, listen: vec!["127.0.0.1:0".into()], ..Config::default() })?;
/// println!("listening on {}", server.addr());
/// server.shutdown()?;
/// # Ok::<(), billstream::Error>(())
/// ```
pub struct Server {
    addresses: Vec<Address>,
    shared: Arc<Shared>,
    monitor: Monitor,
    /// `None` once it was stopped.
    running: Option<Running>,
}

impl Server {
    /// Opens the database, listens, and serves: [`Builder::start`] with nothing but `config`.
    pub fn start(config: Config) -> Result<Server> {
        Server::builder(config).start()
    }

    /// A server that is to start with more than `config`.
    pub fn builder(config: Config) -> Builder {
        Builder::new(config)
    }

    /// The first HOST:PORT it listens on, with the real port where port 0 was asked for.
    ///
    /// # Panics
    ///
    /// Where it listens on none: [`Server::addresses`] has what it listens on.
    pub fn addr(&self) -> SocketAddr {
        let mut addresses = self.addresses.iter();
        let tcp = addresses.find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        });
        tcp.expect("the server listens on a HOST:PORT")
    }

    /// What it listens on, in the order of `Config::listen`.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// A client in this process: its calls come to the server without a port and without framing, and an export's
    /// rows are read where the scan wrote them. They have the server's limits on streams, as one host, and on
    /// queries; after the server stopped they are UNAVAILABLE. A stop waits for a call as long as a thread waits in
    /// it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use billstream::proto::report::SummaryRequest;
    /// use billstream::{Config, Server};
    ///
    /// let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
    /// let server = Server::builder(config).without_listeners().start()?;
    /// let client = server.local();
    /// assert_eq!(client.summary(&SummaryRequest::default())?.invoice_count, 0);
    /// server.shutdown()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn local(&self) -> Client {
        Client::in_process(&self.shared.core)
    }

    /// What the server has counted so far.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.core.metrics
    }

    /// Whether it can do its work. A change is seen here, in `grpc.health.v1` and in the log within two seconds.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let config = billstream::Config { db: dir.path().join("bills.db"), ..Default::default() };
    /// # let server = billstream::Server::builder(config).without_listeners().start()?;
    /// use billstream::server::Health;
    ///
    /// let Health { serving, reasons } = server.health();
    /// assert!(serving, "{reasons:?}");
    /// # server.shutdown()?;
    /// # Ok::<(), billstream::Error>(())
    /// ```
    pub fn health(&self) -> Health {
        self.monitor.state()
    }

    /// The same and what it is doing now, as text for Prometheus: for programs that have an HTTP server of their own.
    /// `docs/observability.md` tells of each. Reading them takes no lock that calls wait for longer than the others do.
    pub fn prometheus(&self) -> String {
        admin::metrics::text(&self.shared.core)
    }

    /// Where the HTTP of `Config::admin_listen` is, with the real port where port 0 was asked for; `None` without it,
    /// and after a stop.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.running.as_ref()?.admin.as_ref().map(Admin::address)
    }

    /// Database connections that readers have checked out at this moment.
    pub fn connections_in_use(&self) -> u32 {
        self.shared.core.store.connections_in_use()
    }

    /// Streams that are open: exports, uploads, reconciles and backups.
    pub fn streams_open(&self) -> usize {
        let limits = &self.shared.core.limits;
        let all = [&limits.exports, &limits.uploads, &limits.reconciles, &limits.backups];
        all.iter().map(|limit| limit.open()).sum()
    }

    /// Stops accepting. Calls that wait for a client that does nothing end at once, queries soon after
    /// that, all with UNAVAILABLE; streams in progress may go on for `drain_timeout_ms`. Then the threads
    /// are joined and the database is closed. What was acknowledged is on disk.
    ///
    /// It may be called on any thread, and inside any executor, which it blocks. On a completion-queue thread
    /// of the server itself it returns at once, and the stop goes on without it: see [`Stopped::is_over`].
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where gRPC does not end its calls in time. The database is closed then too.
    pub fn shutdown(mut self) -> Result<Stopped> {
        self.stop()
    }

    fn stop(&mut self) -> Result<Stopped> {
        let Some(running) = self.running.take() else { return Ok(Stopped::default()) };
        if !threads::is_thread_of(&running.envs.env) {
            return running.stop();
        }
        let stop = move || {
            if let Err(error) = running.stop() {
                log::error!("{error}");
            }
        };
        let thread = thread::Builder::new().name("billstream-stop".to_owned()).spawn(stop);
        thread.map_err(|e| Error::Internal(format!("cannot start a thread to stop: {e}")))?;
        Ok(Stopped::default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::error!("{error}");
        }
    }
}
