//! The start of a server.

use std::sync::Arc;

use grpcio::{Environment, ServerBuilder, Service};
use protobuf::descriptor::FileDescriptorProto;

use crate::admin::Admin;
use crate::calls::Core;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::grpc::{
    self, auth::Check, echo::Echoes, identity::AllowedClients, poller::Poller, Shared,
};

use super::health::{Services, Watching};
use super::listeners::Address;
use super::patches::{core_is_patched, UNPATCHED};
use super::stop::Running;
use super::threads::{is_thread_of, Environments, Hold};
use super::tls::{check_public, Tls};
use super::{channel, tokens, Server, SLOTS_PER_CQ};

/// A server that is to start, with what a [`Config`] cannot hold.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::sync::Arc;
/// use billstream::grpcio::{EnvBuilder, ServiceBuilder};
/// use billstream::{Config, Server};
///
/// let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
/// let server = Server::builder(config)
///     .listen(["127.0.0.1:0".to_owned(), format!("unix:{}/bills.sock", dir.path().display())])
///     .environment(Arc::new(EnvBuilder::new().cq_count(1).build()))
///     .service(ServiceBuilder::new().build())
///     .start()?;
/// assert_eq!(server.addresses().len(), 2);
/// server.shutdown()?;
/// # Ok::<(), billstream::Error>(())
/// ```
pub struct Builder {
    config: Config,
    services: Vec<Service>,
    descriptors: Vec<FileDescriptorProto>,
    environment: Option<Arc<Environment>>,
}

impl Builder {
    pub(super) fn new(config: Config) -> Builder {
        Builder { config, services: Vec::new(), descriptors: Vec::new(), environment: None }
    }

    /// Serves `service` beside ours, on the same addresses. The limits of [`Config`] are not its own; its
    /// calls have `drain_timeout_ms` at a stop, and are cancelled then. With `tokens` its callers need the right
    /// `write`. Methods of `billing.v1`, health and reflection stay ours.
    pub fn service(mut self, service: Service) -> Builder {
        self.services.push(service);
        self
    }

    /// Has reflection tell of the services in `files` too, which [`Builder::service`] serves. What a file imports
    /// is to be among them.
    ///
    /// ```
    /// use billstream::services::reflection::with_imports;
    /// # use billstream::{proto::report, Config, Server};
    ///
    /// // Of code that `protobuf-codegen` has made.
    /// let files = with_imports(report::file_descriptor());
    /// let builder = Server::builder(Config::default()).descriptors(files);
    /// ```
    pub fn descriptors(mut self, files: impl IntoIterator<Item = FileDescriptorProto>) -> Builder {
        self.descriptors.extend(files);
        self
    }

    /// Serves on the threads of `environment`, which go on after a stop, in place of `cq_threads` of the
    /// server's own. Nothing else may connect or start with it until [`Builder::start`] has returned, and
    /// what runs on it must not block.
    pub fn environment(mut self, environment: Arc<Environment>) -> Builder {
        self.environment = Some(environment);
        self
    }

    /// Listens on these, each `HOST:PORT` or `unix:PATH`, in place of those of the configuration.
    pub fn listen<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Builder {
        self.config.listen = addresses.into_iter().map(A::into).collect();
        self
    }

    /// Opens no port: the server is for its own process alone.
    pub fn without_listeners(mut self) -> Builder {
        self.config.listen.clear();
        self
    }

    /// Opens the database, listens, and serves.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a setting that cannot be, [`Error::Unusable`] for a database or an address that
    /// cannot be used, [`Error::Unavailable`] for an address that is taken. Then nothing is left behind: no
    /// file that was not there, no socket, no thread.
    pub fn start(self) -> Result<Server> {
        self.config.validate()?;
        if self.environment.as_deref().is_some_and(is_thread_of) {
            let why = "a server cannot be started on a completion-queue thread that is to serve it";
            return Err(Error::Unusable(why.to_owned()));
        }
        let listen = self.config.listen.iter().map(|listen| Address::resolve(listen));
        let listen = listen.collect::<Result<Vec<_>>>()?;
        listen.iter().try_for_each(|address| check_public(&self.config, address))?;
        let running = self.run()?;
        let shared = Arc::clone(&running.shared);
        let monitor = running.watching.monitor.clone();
        // From here on dropping it stops it.
        let mut server = Server { addresses: Vec::new(), shared, monitor, running: Some(running) };
        log_limits(&server.shared.core.config);
        if !core_is_patched() {
            log::warn!("{UNPATCHED}");
        }
        server.serve(listen)?;
        Ok(server)
    }

    /// Starts all but the service of calls.
    fn run(self) -> Result<Running> {
        let Builder { config, mut services, descriptors, environment } = self;
        let tls = Tls::start(&config)?;
        let (core, threads) = Core::start(config)?;
        let (gate, tokens) = tokens::start(&core.config, &core.metrics)?;
        let envs = Environments::start(core.config.cq_threads, environment);
        let poller = Poller::start(&envs.poller_env);
        let echoes = Echoes::start(&envs.env, poller.clone());
        let shared = Arc::new(Shared { core, echoes, poller, gate });
        let hold = Hold::start(&envs.env);
        let has_own_services = !services.is_empty();
        let standard = Services::new(&shared.core.config, descriptors);
        services.extend(standard.all());
        let grpc = grpc_server(&envs.env, &shared, services);
        let watching = Watching::start(Arc::clone(&shared.core), standard)?;
        Ok(Running {
            grpc: grpc?,
            envs,
            hold,
            shared,
            admin: None,
            threads,
            watching,
            has_own_services,
            is_serving: false,
            tls,
            tokens,
        })
    }
}

impl Server {
    /// Listens and takes calls.
    fn serve(&mut self, listen: Vec<Address>) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        for address in listen {
            self.addresses.push(address.bind(&mut running.grpc, running.tls.as_ref())?);
        }
        let addresses: Vec<_> = self.addresses.iter().map(Address::to_string).collect();
        running.admin =
            Admin::start(&running.shared.core, &running.shared.gate, addresses.clone())?;
        if let Some(admin) = &running.admin {
            log::info!("what it does is told at http://{}/", admin.address());
        }
        // Before the first call may be answered.
        running.threads.store.keep();
        running.threads.store.tell(&addresses.join(", "));
        running.grpc.start();
        running.is_serving = true;
        Ok(())
    }
}

/// Ours are the last of the services: of two methods of one name the last one counts.
fn grpc_server(
    env: &Arc<Environment>,
    shared: &Arc<Shared>,
    services: Vec<Service>,
) -> Result<grpcio::Server> {
    let builder = ServerBuilder::new(Arc::clone(env))
        .channel_args(channel(env, &shared.core.config).build_args())
        .requests_slot_per_cq(SLOTS_PER_CQ);
    let builder = match AllowedClients::new(shared) {
        Some(checker) => builder.add_checker(checker),
        None => builder,
    };
    let builder = match Check::new(shared) {
        Some(checker) => builder.add_checker(checker),
        None => builder,
    };
    let services = services.into_iter().chain([grpc::admin_service(shared), grpc::service(shared)]);
    services
        .fold(builder, ServerBuilder::register_service)
        .build()
        .map_err(|e| Error::Internal(format!("gRPC does not start: {e}")))
}

fn log_limits(config: &Config) {
    log::debug!(
        "an export holds at most {} bytes = (export_queue_chunks + 2) * (2 * export_chunk_bytes + a row); \
         all streams at their limits at most {} MiB; all peers together at most {} MiB = grpc_memory_bytes + \
         streams, and the caches of the database beside it",
        config.export_memory_bytes(),
        config.streams_memory_bytes() >> 20,
        (config.grpc_memory_bytes + config.streams_memory_bytes()) >> 20
    );
}
