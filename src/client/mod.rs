//! The other end of the service: [`Client`], blocking and typed.

mod backup;
mod batch;
mod export;
mod grpc;
mod invoices;
mod local;
mod options;
mod reconcile;
mod resumed;
mod retry;
mod stub;
mod upload;
mod validate;
mod window;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::status::{Code, Status as Error};
pub use backup::Backup;
pub use export::{EventExport, Export};
pub use invoices::{InvoiceRef, Invoices, Malformed};
pub use options::ConnectOptions;
pub use reconcile::{Acks, Events, Reconcile};
pub use retry::Retry;
#[doc(hidden)]
pub use stub::Stub;
pub use upload::Upload;

use crate::bridge::wait_while;
use crate::calls::Core;
use crate::config::Config;
use crate::proto::report::{
    ExportEventsRequest, ExportRequest, GetInvoiceRequest, GetInvoiceResponse, ListInvoicesRequest,
    ListInvoicesResponse, Summary, SummaryRequest,
};
use crate::stop::Stop;

/// What a call gives, or the status that it ended with.
pub type Result<T> = std::result::Result<T, Error>;

/// A client of one server. Its calls block the thread that makes them, also inside an executor.
///
/// A clone is cheap and shares the connection; threads may share a client too. It connects at the first call, and
/// again after the connection was lost.
///
/// ```
/// use billstream::client::Client;
/// use billstream::proto::report::{CreateInvoiceRequest, ExportRequest, ReconcileEvent, SummaryRequest};
/// use billstream::{Config, Server};
/// use protobuf::well_known_types::timestamp::Timestamp;
///
/// # let dir = tempfile::tempdir()?;
/// # let db = dir.path().join("bills.db");
/// let server = Server::start(Config { db, listen: vec!["127.0.0.1:0".to_owned()], ..Config::default() })?;
/// let client = Client::connect(&server.addr().to_string());
///
/// let mut upload = client.upload()?;
/// upload.send(&CreateInvoiceRequest {
///     invoice_id: "inv-1".to_owned(),
///     customer_id: "cust-1".to_owned(),
///     total_amount_cents: 500,
///     currency: "EUR".to_owned(),
///     issued_at: Some(Timestamp::now()).into(),
///     ..Default::default()
/// })?;
/// assert_eq!(upload.commit("batch-1")?.created_count, 1);
///
/// for invoices in client.export(&ExportRequest::default()) {
///     for invoice in invoices?.iter() {
///         println!("{} {} {}", invoice.invoice_id, invoice.total_amount_cents, invoice.currency);
///     }
/// }
///
/// let (events, acks) = client.reconcile().split();
/// events.send(ReconcileEvent {
///     event_id: "event-1".to_owned(),
///     invoice_id: "inv-1".to_owned(),
///     amount_cents: 500,
///     currency: "EUR".to_owned(),
///     received_at: Some(Timestamp::now()).into(),
///     ..Default::default()
/// })?;
/// events.finish();
/// for acks in acks {
///     println!("{:?}", acks?[0].outcome);
/// }
///
/// assert_eq!(client.summary(&SummaryRequest::default())?.totals[0].paid_cents, 500);
/// server.shutdown()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    /// How long one unary call may take.
    timeout: Option<Duration>,
    retry_for: Duration,
    on_retry: OnRetry,
    stop: Stop,
}

type OnRetry = Arc<dyn Fn(&Error, Duration) + Send + Sync>;

/// How calls come to a server. What differs between the ways is behind this and the calls it opens: all else,
/// such as batches and further tries, is shared.
#[derive(Clone)]
enum Transport {
    Grpc(grpc::Connection),
    Local(local::Local),
}

/// How long a client tries again where it is not told.
const RETRY_FOR: Duration = Duration::from_secs(10);

impl Client {
    /// A client of the server at `addr` (HOST:PORT) over gRPC, with a thread of its own. It goes straight to the
    /// server, whatever proxy the environment names.
    pub fn connect(addr: &str) -> Client {
        let options = ConnectOptions::default();
        Client::over(Transport::Grpc(grpc::Connection::new(addr, Stub::new(addr), &options)))
    }

    /// As [`Client::connect`], with TLS, a token, or a proxy.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) for options that cannot be, or that would send a token for
    /// everyone to read. What the server thinks of them shows at the first call.
    pub fn connect_with(addr: &str, options: &ConnectOptions) -> crate::Result<Client> {
        options.check(addr)?;
        let stub = Stub::with_options(addr, options);
        Ok(Client::over(Transport::Grpc(grpc::Connection::new(addr, stub, options))))
    }

    /// A client of the database file `db`, which no server may have meanwhile; it is created where it does not
    /// exist. The calls are those of a server, in this process: no port is opened and nothing is framed. The file is
    /// closed when the last clone of the client and the last of its calls are dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`](crate::Error::Unusable) where the file is no database of ours, cannot be opened, or is a
    /// server's or another client's; of a server with the address to call instead.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("bills.db");
    /// use billstream::proto::report::SummaryRequest;
    /// use billstream::Client;
    ///
    /// let client = Client::open(path)?;
    /// assert_eq!(client.summary(&SummaryRequest::default())?.invoice_count, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(db: impl Into<PathBuf>) -> crate::Result<Client> {
        Client::open_with(Config { db: db.into(), ..Config::default() })
    }

    /// As [`Client::open`], with the settings of a server. Its listeners and what is gRPC's are of no use.
    pub fn open_with(config: Config) -> crate::Result<Client> {
        Ok(Client::local(local::Local::open(config)?))
    }

    /// A client in the process of a server, with its core.
    pub(crate) fn in_process(core: &Arc<Core>) -> Client {
        Client::local(local::Local::of(core))
    }

    fn local(local: local::Local) -> Client {
        // Nothing is lost on the way, so that it helps only where the database is locked.
        Client::over(Transport::Local(local)).with_retries(Duration::ZERO)
    }

    fn over(transport: Transport) -> Client {
        Client {
            transport,
            timeout: None,
            retry_for: RETRY_FOR,
            on_retry: Arc::new(|_, _| {}),
            stop: Stop::default(),
        }
    }

    /// Bounds each [`Client::summary`], [`Client::list`] and [`Client::invoice`] by `timeout`: it ends with DEADLINE_EXCEEDED after
    /// it, and is not tried again. By default the server's `unary_timeout_ms` bounds them alone.
    pub fn with_timeout(self, timeout: Duration) -> Client {
        Client { timeout: Some(timeout), ..self }
    }

    /// For how long to go on trying where that may help, counted from the first failure after the last progress:
    /// when the connection was lost, and when the server says so. 10 seconds by default; 0: a failure is one at
    /// once.
    ///
    /// It holds for summaries, pages, invoices, exports, reconciliations and validations of events, which none of this can harm, and for
    /// [`Client::retry`].
    pub fn with_retries(self, retry_for: Duration) -> Client {
        Client { retry_for, ..self }
    }

    /// Tells `on_retry` of each failure that is not yet one, and of the delay until the next try.
    pub fn on_retry(self, on_retry: impl Fn(&Error, Duration) + Send + Sync + 'static) -> Client {
        Client { on_retry: Arc::new(on_retry), ..self }
    }

    /// Ends all calls of this client with CANCELLED once `stop` has a reason, whichever: those under way within
    /// 50 ms.
    ///
    /// ```no_run
    /// use billstream::client::Client;
    /// use billstream::proto::report::ExportRequest;
    /// use billstream::stop::{Reason, Stop};
    ///
    /// let stop = Stop::default();
    /// let client = Client::connect("127.0.0.1:50051").with_stop(&stop);
    /// let export = std::thread::spawn(move || client.export(&ExportRequest::default()).count());
    /// stop.stop(Reason::ClientGone);
    /// export.join().unwrap();
    /// ```
    pub fn with_stop(self, stop: &Stop) -> Client {
        Client { stop: stop.clone(), ..self }
    }

    /// The tries of one piece of work: see [`Retry`].
    pub fn retry(&self) -> Retry {
        Retry::new(self)
    }

    /// Counts and sums by currency, in minor units.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with the violations of the request; what [`Client::with_retries`] did not help against.
    pub fn summary(&self, request: &SummaryRequest) -> Result<Summary> {
        self.unary(|| self.summary_once(request))
    }

    /// One page of invoices; `next_page_token` asks for the next one.
    ///
    /// # Errors
    ///
    /// As [`Client::summary`].
    pub fn list(&self, request: &ListInvoicesRequest) -> Result<ListInvoicesResponse> {
        self.unary(|| match &self.transport {
            Transport::Grpc(connection) => connection.list(request, self.timeout, &self.stop),
            Transport::Local(local) => local.list(request, self.timeout, &self.stop),
        })
    }

    /// One invoice with its newest events; of older ones, `next_before_event_sequence` asks for more.
    ///
    /// # Errors
    ///
    /// NOT_FOUND where no invoice has the id; else as [`Client::summary`].
    ///
    /// ```no_run
    /// use billstream::client::{Client, Error};
    /// use billstream::proto::report::GetInvoiceRequest;
    ///
    /// let client = Client::connect("127.0.0.1:50051");
    /// let invoice_id = "inv-1".to_owned();
    /// let mut request = GetInvoiceRequest { invoice_id, ..Default::default() };
    /// loop {
    ///     let found = client.invoice(&request)?;
    ///     for event in found.events {
    ///         println!("{} {}", event.event_id, event.paid_change_cents);
    ///     }
    ///     request.before_event_sequence = found.next_before_event_sequence;
    ///     if request.before_event_sequence == 0 {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn invoice(&self, request: &GetInvoiceRequest) -> Result<GetInvoiceResponse> {
        self.unary(|| match &self.transport {
            Transport::Grpc(connection) => connection.invoice(request, self.timeout, &self.stop),
            Transport::Local(local) => local.invoice(request, self.timeout, &self.stop),
        })
    }

    /// Every invoice that matches, in the order of `sequence`: see [`Export`]. The call is made by the first
    /// `next`, which has its failures too.
    pub fn export(&self, request: &ExportRequest) -> Export {
        Export::new(self, request)
    }

    /// Every event that was applied, in the order of `event_sequence`: see [`EventExport`]. The call is made by the
    /// first `next`, which has its failures too.
    pub fn export_events(&self, request: &ExportEventsRequest) -> EventExport {
        EventExport::new(self, request)
    }

    /// Begins to create invoices, all of them or none: see [`Upload`].
    ///
    /// # Errors
    ///
    /// INTERNAL where the call cannot be made at all. That there is no server shows later.
    pub fn upload(&self) -> Result<Upload> {
        Upload::open(self)
    }

    /// Payments in, acknowledgements out: see [`Reconcile`].
    pub fn reconcile(&self) -> Reconcile {
        Reconcile::new(self)
    }

    /// Whether no call of it can succeed any more.
    fn is_gone(&self) -> bool {
        match &self.transport {
            // Another server may come.
            Transport::Grpc(_) => false,
            Transport::Local(local) => local.is_stopping(),
        }
    }

    fn summary_once(&self, request: &SummaryRequest) -> Result<Summary> {
        match &self.transport {
            Transport::Grpc(connection) => connection.summary(request, self.timeout, &self.stop),
            Transport::Local(local) => local.summary(request, self.timeout, &self.stop),
        }
    }

    fn unary<T>(&self, call: impl Fn() -> Result<T>) -> Result<T> {
        let mut retry = self.retry();
        loop {
            match call() {
                // The query takes longer than it may, and would again.
                Err(error) if error.code == Code::DeadlineExceeded => return Err(error),
                Err(error) => retry.wait(error)?,
                done => return done,
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            Transport::Grpc(connection) => write!(f, "Client({})", connection.addr()),
            Transport::Local(local) => write!(f, "Client({})", local.db()),
        }
    }
}

/// Waits for `future` on this thread, unless the client is stopped.
fn wait<F: Future>(stop: &Stop, future: F) -> Result<F::Output> {
    wait_while(future, || !stop.is_stopped()).ok_or_else(cancelled)
}

/// What a stopped client's calls end with.
fn cancelled() -> Error {
    Error::new(Code::Cancelled, "stopped by this client")
}
