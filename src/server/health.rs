//! Whether the server can do its work, and who is told of it: the services of gRPC that tell of a server.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{bounded, RecvTimeoutError, Sender};
use grpcio::Service;
use protobuf::descriptor::FileDescriptorProto;

use crate::calls::Core;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::proto::{admin, report};
use crate::services::health::{self, Status, Statuses};
use crate::services::reflection::{with_imports, Reflection};
use crate::services::Limits;

/// The time between two looks. A lock takes longest to be seen: a second until the writer is idle, 0.4 more
/// until it is no passing one, and this.
const TICK: Duration = Duration::from_millis(250);

/// What has a status of its own, beside the server as a whole: they have the same.
const SERVICES: [&str; 2] = ["", "billing.v1.ReportService"];

/// Whether a server can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it can: the database can be written, and no stop was asked for. (It may be read where it cannot be
    /// written: calls are tried all the same.)
    pub serving: bool,
    /// Why not, each for an operator; empty where it can.
    pub reasons: Vec<String>,
}

/// The services of gRPC that tell of a server.
#[derive(Clone)]
pub struct Services {
    statuses: Statuses,
    /// `None` where it is turned off.
    reflection: Option<Reflection>,
}

impl Services {
    /// `others` are the files of an embedder's services.
    pub fn new(config: &Config, others: Vec<FileDescriptorProto>) -> Services {
        let limits = Limits {
            max_streams: config.max_service_streams,
            max_streams_per_connection: config.max_service_streams.div_ceil(16),
            message_timeout: Duration::from_millis(config.first_message_timeout_ms),
        };
        let ours = [report::file_descriptor(), admin::file_descriptor()].into_iter();
        let ours = ours.flat_map(with_imports).chain(health::files());
        let reflection = || Reflection::new(limits, ours.chain(others));
        Services { statuses: Statuses::new(limits), reflection: config.reflection.then(reflection) }
    }

    /// To be registered with gRPC.
    pub fn all(&self) -> impl Iterator<Item = Service> {
        let reflection = self.reflection.as_ref().map(Reflection::service);
        [self.statuses.service()].into_iter().chain(reflection)
    }
}

/// Knows how the server is. All clones are one.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

struct Shared {
    core: Arc<Core>,
    services: Services,
    /// As it was told last.
    told: Mutex<Health>,
}

impl Monitor {
    fn new(core: Arc<Core>, services: Services) -> Monitor {
        let told = Mutex::new(Health { serving: true, reasons: Vec::new() });
        let monitor = Shared { core, services, told };
        monitor.tell(Status::Serving);
        Monitor(Arc::new(monitor))
    }

    /// How the server was at the last look. Does not wait for the file system, unless a look does.
    pub fn state(&self) -> Health {
        self.0.told().clone()
    }

    /// A stop was asked for: whoever chooses servers by their health is to choose another one from now on.
    pub fn draining(&self) {
        self.0.core.stopping.is_draining.store(true, Ordering::SeqCst);
        self.0.look();
    }

    /// Ends the calls of the services, which would hold up a stop.
    pub fn close(&self) {
        self.0.services.statuses.close();
        self.0.services.reflection.iter().for_each(Reflection::close);
    }
}

impl Shared {
    /// Looks, and tells what has changed.
    fn look(&self) {
        // Held over the look: of two at once, the later one counts.
        let mut told = self.told();
        let is_draining = self.core.stopping.is_draining.load(Ordering::SeqCst);
        let reasons = self.core.not_ready();
        let now = Health { serving: reasons.is_empty(), reasons };
        if *told == now {
            return;
        }
        match now.serving {
            true => log::info!("SERVING again"),
            false if is_draining => log::info!("NOT SERVING: {}", now.reasons.join("; ")),
            false => log::warn!("NOT SERVING: {}", now.reasons.join("; ")),
        }
        if told.serving != now.serving {
            self.tell(if now.serving { Status::Serving } else { Status::NotServing });
        }
        *told = now;
    }

    fn tell(&self, status: Status) {
        SERVICES.iter().for_each(|service| self.services.statuses.set(service, status));
    }

    fn told(&self) -> MutexGuard<'_, Health> {
        self.told.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The thread that looks. Dropping this ends it.
pub struct Watching {
    pub monitor: Monitor,
    /// `None` once it is to end.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    /// Looks once before it returns.
    pub fn start(core: Arc<Core>, services: Services) -> Result<Watching> {
        let monitor = Monitor::new(core, services);
        monitor.0.look();
        let (stop, stopped) = bounded::<()>(0);
        let shared = Arc::clone(&monitor.0);
        let look = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                shared.look();
            }
        };
        let thread = thread::Builder::new().name("billstream-health".to_owned()).spawn(look);
        let thread = thread
            .map_err(|e| Error::Unusable(format!("cannot start the thread of the health: {e}")))?;
        Ok(Watching { monitor, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread of the health panicked");
        }
    }
}
