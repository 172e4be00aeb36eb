//! The server: what a program starts, asks for its address, and stops.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use futures::executor::block_on;
use futures::future::{select, Either};
use futures_timer::Delay;
use grpcio::{EnvBuilder, Environment, ServerBuilder, ServerCredentials};

use crate::calls::call::{Seldom, Stopping, STOP_GRACE};
use crate::calls::unary::UnderWay;
use crate::calls::{limits::Limits, sweep::Sweep, Core};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::grpc::{self, echo::Echoes, poller::Poller, Shared};
use crate::metrics::Metrics;
use crate::peer::Share;
use crate::stop::{Reason, Stop};
use crate::store::{Store, StoreThread};
use crate::workers::Workers;

mod channel;
mod patches;

pub use crate::store::{backup, check, restore, CheckReport, Restored};
pub use channel::channel;
pub use patches::{core_is_patched, UNPATCHED};

/// How long cancelled calls may take to end before a stop goes on without them.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Call slots a completion queue offers at once. With the 1,024 of grpcio a stop can take over 12
/// seconds (tikv/grpc-rs#674); each slot is offered anew as soon as it is taken.
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
/// let config = Config { db: dir.path().join("bills.db"), listen: "127.0.0.1:0".into(), ..Config::default() };
/// let server = Server::start(config)?;
/// println!("listening on {}", server.addr());
/// server.shutdown()?;
/// # Ok::<(), billstream::Error>(())
/// ```
pub struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// `None` once it was stopped.
    parts: Option<Parts>,
}

/// What a stop takes apart, in its order.
struct Parts {
    grpc: grpcio::Server,
    envs: Environments,
    exports: Workers,
    unary: Workers,
    spool: Workers,
    store: StoreThread,
    sweep: JoinHandle<()>,
}

impl Server {
    /// Opens the database, listens, and serves.
    pub fn start(config: Config) -> Result<Server> {
        config.validate()?;
        let listen = resolve(&config.listen)?;
        let metrics = Arc::new(Metrics::default());
        let (store, mut store_thread) = Store::open(&config, &metrics)?;
        let (threads, queued) = (config.unary_workers, config.max_queued_unary);
        let unary = Workers::start("billstream-unary", threads, queued, config.share())?;
        // Their peers have their shares of the streams. There is room for every export, and for a block
        // ahead of each that runs; and for every upload.
        let (threads, queued) = (config.export_workers, config.max_exports + config.export_workers);
        let exports = Workers::start("billstream-export", threads, queued, Share::ALL)?;
        let spool = Workers::start("billstream-spool", 1, config.max_uploads, Share::ALL)?;
        let Environments { env, poller_env, threads_ended } = Environments::start(&config);
        let poller = Poller::start(&poller_env);
        let core = Arc::new(Core {
            store,
            metrics: Arc::clone(&metrics),
            limits: Limits::new(&config, &metrics),
            unary: unary.queue(),
            unary_calls: UnderWay::default(),
            exports: exports.queue(),
            spool: spool.queue(),
            sweep: Sweep::default(),
            calls_open: AtomicUsize::new(0),
            stopping: Stopping::default(),
            seldom: Seldom::default(),
            config,
        });
        let echoes = Echoes::start(&env, poller.clone());
        let shared = Arc::new(Shared { core, echoes, poller });
        log_limits(&shared.core.config);
        if !core_is_patched() {
            log::warn!("{UNPATCHED}");
        }
        let mut grpc = ServerBuilder::new(Arc::clone(&env))
            .channel_args(channel(&env, &shared.core.config).build_args())
            .requests_slot_per_cq(SLOTS_PER_CQ)
            .register_service(grpc::service(&shared))
            .build()
            .map_err(|e| Error::Internal(format!("gRPC does not start: {e}")))?;
        let port = grpc
            .add_listening_port(listen.to_string(), ServerCredentials::insecure())
            .map_err(|_| {
                Error::Unavailable(format!("cannot listen on {listen}: {}", bind_error(listen)))
            })?;
        let sweep = shared.core.sweep.start()?;
        // Before the first call may be answered.
        store_thread.keep();
        let addr = SocketAddr::new(listen.ip(), port);
        store_thread.tell(&addr.to_string());
        grpc.start();
        let envs = Environments { env, poller_env, threads_ended };
        let store = store_thread;
        let parts = Parts { grpc, envs, exports, unary, spool, store, sweep };
        Ok(Server { addr, shared, parts: Some(parts) })
    }

    /// The address it listens on, with the real port where port 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the server has counted so far.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.core.metrics
    }

    /// Database connections that readers have checked out at this moment.
    pub fn connections_in_use(&self) -> u32 {
        self.shared.core.store.connections_in_use()
    }

    /// Streams that are open: exports, uploads and reconciles.
    pub fn streams_open(&self) -> usize {
        let limits = &self.shared.core.limits;
        limits.exports.open() + limits.uploads.open() + limits.reconciles.open()
    }

    /// Stops accepting. Calls that wait for a client that does nothing end at once, queries soon after
    /// that, all with UNAVAILABLE; streams in progress may go on for `drain_timeout_ms`. Then the threads
    /// are joined and the database is closed. What was acknowledged is on disk.
    pub fn shutdown(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let Some(parts) = self.parts.take() else { return Ok(()) };
        let Parts { mut grpc, envs, exports, unary, spool, store, sweep } = parts;
        let start = Instant::now();
        let drained = self.drain(&mut grpc);
        // The workers first: the calls they serve are over, and a scan that still runs sees that
        // its receiver is gone.
        exports.stop();
        unary.stop();
        spool.stop();
        self.shared.core.store.close();
        store.stop();
        self.shared.poller.close();
        drop(grpc);
        let all_ended = envs.stop(CANCEL_TIMEOUT);
        self.shared.core.sweep.close();
        // OK because a look at a call panics only where the call itself would.
        sweep.join().expect("the sweep thread does not panic");
        log::info!("stopped after {:?}", start.elapsed());
        if drained && all_ended {
            Ok(())
        } else {
            Err(Error::Internal("gRPC did not stop in time; the database is closed".to_owned()))
        }
    }

    /// Ends all calls, the longer the less they are in progress; whether they have ended.
    fn drain(&self, grpc: &mut grpcio::Server) -> bool {
        let Core { config, stopping, .. } = &*self.shared.core;
        let drain = Duration::from_millis(config.drain_timeout_ms);
        let mut stopped = grpc.shutdown();
        let mut has_stopped = |time: Duration| {
            matches!(block_on(select(&mut stopped, Delay::new(time))), Either::Left(_))
        };
        self.tell(&stopping.waits);
        if has_stopped(drain.min(STOP_GRACE)) {
            return true;
        }
        self.tell(&stopping.queries);
        let start = Instant::now();
        let calls_open = || self.shared.core.calls_open.load(Ordering::Relaxed);
        while calls_open() > 0 && start.elapsed() + STOP_GRACE < drain {
            if has_stopped(Duration::from_millis(20)) {
                return true;
            }
        }
        if calls_open() > 0 {
            log::info!("ending {} calls that are open after {drain:?}", calls_open());
            self.tell(&stopping.calls);
            // For their statuses to get out.
            if has_stopped(STOP_GRACE) {
                return true;
            }
        }
        // Also where no call is left: the connection of a client that answers no PING ends by this.
        grpc.cancel_all_calls();
        has_stopped(CANCEL_TIMEOUT)
    }

    fn tell(&self, stop: &Stop) {
        stop.stop(Reason::Stopping);
        self.shared.core.sweep.hurry();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::error!("{error}");
        }
    }
}

fn resolve(listen: &str) -> Result<SocketAddr> {
    let addrs = listen.to_socket_addrs();
    let unusable = |why: &dyn std::fmt::Display| {
        Error::Unusable(format!("cannot listen on {listen:?}: {why}; expected HOST:PORT"))
    };
    addrs.map_err(|e| unusable(&e))?.next().ok_or_else(|| unusable(&"it has no address"))
}

/// gRPC does not say why it cannot listen; trying it says.
fn bind_error(listen: SocketAddr) -> String {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => "gRPC refuses the address".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The threads of gRPC.
struct Environments {
    /// Those that serve calls.
    env: Arc<Environment>,
    /// The one of [`Poller`].
    poller_env: Arc<Environment>,
    /// Disconnected when the last of them has ended: grpcio does not join them.
    threads_ended: Receiver<()>,
}

impl Environments {
    fn start(config: &Config) -> Environments {
        let (alive, threads_ended) = bounded::<()>(0);
        // Each thread takes one clone with it. Held here they would outlive the threads.
        let clones: Vec<Option<Sender<()>>> = vec![Some(alive); config.cq_threads + 1];
        let clones = Arc::new(std::sync::Mutex::new(clones));
        let start = |name: &str, threads| {
            let clones = Arc::clone(&clones);
            let env =
                EnvBuilder::new().cq_count(threads).name_prefix(name).before_stop(move || {
                    drop(clones.lock().unwrap_or_else(|e| e.into_inner()).pop());
                });
            Arc::new(env.build())
        };
        Environments {
            env: start("billstream-cq", config.cq_threads),
            poller_env: start("billstream-poll", 1),
            threads_ended,
        }
    }

    /// Whether all threads have ended in time.
    fn stop(self, timeout: Duration) -> bool {
        drop((self.env, self.poller_env));
        self.threads_ended.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout)
    }
}

fn log_limits(config: &Config) {
    log::info!(
        "an export holds at most {} bytes = (export_queue_chunks + 2) * (2 * export_chunk_bytes + a row); \
         all streams at their limits at most {} MiB; all peers together at most {} MiB = grpc_memory_bytes + \
         streams, and the caches of the database beside it",
        config.export_memory_bytes(),
        config.streams_memory_bytes() >> 20,
        (config.grpc_memory_bytes + config.streams_memory_bytes()) >> 20
    );
}
