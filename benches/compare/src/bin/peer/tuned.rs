//! The peer with everything we know: what billstream does, done with tonic.
//!
//! - Exports are scanned in turns of about [`CHUNK`] bytes by threads of their own, and encoded by an SQL
//!   function. A turn begins when the client has taken the one before the last, so a
//!   client that stalls holds two chunks, and no thread, connection or transaction.
//! - Point queries run on the runtime's own threads, without a hand over. Long ones have a lane.
//! - One writer thread commits all that wait at once, each job whole or not at all, and keeps the totals
//!   with the triggers switched off, once a commit.
//! - An acknowledged batch of events is one job, and its acks leave as one buffer.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use compare::proto::{
    CreateInvoiceBatch, CreateInvoiceRequest, ExportRequest, ListInvoicesRequest,
    ReconcileAckBatch, ReconcileEvent, ReconcileEventBatch, SummaryRequest,
};
use compare::store::Scan;
use compare::totals::Totals;
use compare::{bulk, encode, reconcile, rules, store};
use futures_util::{stream, StreamExt, TryStreamExt};
use prost::Message;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout, Sleep};
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::lanes::{self, inline, Answer, Lane, Writer};
use service::report_service_server::{ReportService, ReportServiceServer};

/// tonic's service over our proto, whose responses are bytes. See `build.rs`.
mod service {
    include!(concat!(env!("OUT_DIR"), "/billing.v1.ReportService.rs"));
}

/// The first turn of an export in bytes: small, for a quick first row. Each further one is twice
/// the one before, up to `CHUNK`: a batch with its header then fills four DATA frames of 16 KiB,
/// and leaves nothing for a fifth.
const FIRST_CHUNK: usize = 1 << 10;
const CHUNK: usize = 63 << 10;
/// The largest page that is read on a thread of the runtime: some 100 us.
const INLINE_PAGE: i32 = 200;
/// The most events in one job.
const EVENTS: usize = 256;
/// The longest a client may send nothing, and the longest life of an export.
const IDLE: Duration = Duration::from_secs(300);
const MAX_AGE: Duration = Duration::from_secs(86_400);

pub fn serve(db: PathBuf, address: &str) -> Result<(), Box<dyn Error>> {
    let peer = Tuned {
        queries: Lane::start(&db, "query", 2)?,
        exports: Arc::new(Lane::start(&db, "export", 2)?),
        writer: Arc::new(Writer::start(&db)?),
        open_exports: Arc::new(Semaphore::new(4096)),
        open_uploads: Semaphore::new(256),
        open_reconciles: Arc::new(Semaphore::new(1024)),
        db,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let incoming = crate::listen(address).await?;
        Server::builder()
            // h2 ends a connection with many small frames unread, and allows more of them the larger
            // its window is: with these, one stream of small events cannot reach that.
            .initial_stream_window_size(512 << 10)
            .initial_connection_window_size(8 << 20)
            .max_frame_size(64 << 10)
            .max_concurrent_streams(2048)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .add_service(
                ReportServiceServer::new(peer).max_decoding_message_size(rules::MAX_MESSAGE_BYTES),
            )
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

struct Tuned {
    db: PathBuf,
    queries: Lane,
    exports: Arc<Lane>,
    writer: Arc<Writer>,
    open_exports: Arc<Semaphore>,
    open_uploads: Semaphore,
    open_reconciles: Arc<Semaphore>,
}

/// Encoded messages in one buffer.
struct Messages {
    bytes: Bytes,
    lengths: std::vec::IntoIter<u32>,
}

impl Messages {
    fn new(bytes: Vec<u8>, lengths: Vec<u32>) -> Messages {
        Messages { bytes: bytes.into(), lengths: lengths.into_iter() }
    }
}

impl Iterator for Messages {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.lengths.next().map(|length| self.bytes.split_to(length as usize))
    }
}

/// An export between two turns.
struct Cursor {
    scan: Scan,
    batched: bool,
    chunk: usize,
}

/// What a turn gave, and how to go on, if there is more.
type Turn = (Messages, Option<Cursor>);

impl Cursor {
    fn turn(mut self, connection: &Connection) -> store::Result<Turn> {
        let mut lengths = Vec::with_capacity(if self.batched { 1 } else { self.chunk / 64 });
        let mut end = 0;
        let (done, bytes) = encode::pushed(self.chunk + 1024, || {
            self.scan.run(connection, |_| {
                let start = std::mem::replace(&mut end, encode::pushed_bytes());
                if !self.batched {
                    lengths.push((end - start) as u32);
                }
                Ok(end < self.chunk)
            })
        })?;
        if self.batched && !bytes.is_empty() {
            lengths.push(bytes.len() as u32);
        }
        self.chunk = CHUNK.min(self.chunk * 2);
        Ok((Messages::new(bytes, lengths), (!done).then_some(self)))
    }
}

/// The response of an export: the messages of one turn while the next one is made.
pub struct Export {
    messages: Messages,
    next: Option<Answer<Turn>>,
    lane: Arc<Lane>,
    expiry: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Export {
    fn receive(&mut self, (messages, rest): Turn) -> Result<(), Status> {
        self.messages = messages;
        self.next = match rest {
            Some(cursor) => Some(self.lane.submit(|connection| cursor.turn(connection))?),
            None => None,
        };
        Ok(())
    }
}

impl Stream for Export {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.messages.next() {
                return Poll::Ready(Some(Ok(message)));
            }
            let Some(next) = &mut self.next else { return Poll::Ready(None) };
            let turn = match Pin::new(&mut next.receiver).poll(cx) {
                Poll::Ready(turn) => turn.unwrap_or_else(|_| Err(Status::internal("lost"))),
                Poll::Pending => {
                    ready!(self.expiry.as_mut().poll(cx));
                    Err(Status::deadline_exceeded("the export took too long"))
                }
            };
            self.next = None;
            if let Err(status) = turn.and_then(|turn| self.receive(turn)) {
                return Poll::Ready(Some(Err(status)));
            }
        }
    }
}

impl Tuned {
    async fn export(
        &self,
        request: Request<ExportRequest>,
        batched: bool,
    ) -> Result<Response<Export>, Status> {
        let permit = self.open_exports.clone().try_acquire_owned().map_err(|_| full())?;
        let expiry = Box::pin(sleep(deadline(request.metadata()).unwrap_or(MAX_AGE)));
        let request = request.into_inner();
        let first = self.exports.submit(move |connection| {
            let columns = if batched { store::PUSHED_ENTRY } else { store::PUSHED_INVOICE };
            let scan = Scan::export(connection, &request, columns)?;
            Cursor { scan, batched, chunk: FIRST_CHUNK }.turn(connection)
        })?;
        let mut export = Export {
            messages: Messages::new(Vec::new(), Vec::new()),
            next: None,
            lane: self.exports.clone(),
            expiry,
            _permit: permit,
        };
        export.receive(first.wait().await?)?;
        Ok(Response::new(export))
    }

    async fn create(
        &self,
        upload: rules::Upload,
        required: bool,
    ) -> Result<Response<Bytes>, Status> {
        let upload = upload.finish(required)?;
        crate::settle().await;
        let answer = self.writer.submit(move |connection| {
            bulk::create(connection, &upload.invoices, upload.commit.as_ref())
        })?;
        Ok(Response::new(answer.wait().await?.encode_to_vec().into()))
    }

    /// Runs a query here if it is `short`, and in its lane if it is not or would have to wait.
    async fn query(
        &self,
        short: bool,
        query: impl Fn(&Connection) -> store::Result<Bytes> + Send + 'static,
    ) -> Result<Response<Bytes>, Status> {
        if let Some(done) = short.then(|| inline(&self.db, &query)).flatten() {
            return Ok(Response::new(done?));
        }
        let answer = self.queries.submit(move |connection| query(connection))?;
        Ok(Response::new(answer.wait().await?))
    }
}

#[tonic::async_trait]
impl ReportService for Tuned {
    async fn get_summary(
        &self,
        request: Request<SummaryRequest>,
    ) -> Result<Response<Bytes>, Status> {
        let request = request.into_inner();
        let short = request.issued_from.is_none() && request.issued_until.is_none();
        self.query(short, move |connection| {
            let _transaction = lanes::begin_reading(connection)?;
            Ok(store::summary(connection, &request)?.encode_to_vec().into())
        })
        .await
    }

    async fn list_invoices(
        &self,
        request: Request<ListInvoicesRequest>,
    ) -> Result<Response<Bytes>, Status> {
        let request = request.into_inner();
        // A filter may have to pass over any number of rows, except one that has an index.
        let short = request.page_size <= INLINE_PAGE
            && request.statuses.is_empty()
            && request.issued_from.is_none()
            && request.issued_until.is_none();
        self.query(short, move |connection| {
            let mut end = 0;
            let (token, mut bytes) = encode::pushed(16 << 10, || {
                store::page(connection, &request, store::PUSHED_ENTRY, |_| {
                    end = encode::pushed_bytes();
                    Ok(())
                })
            })?;
            // The row after the page was encoded too.
            bytes.truncate(end);
            encode::text(2, token.as_bytes(), &mut bytes);
            Ok(bytes.into())
        })
        .await
    }

    type ExportInvoicesStream = Export;

    async fn export_invoices(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Export>, Status> {
        self.export(request, false).await
    }

    type ExportInvoiceBatchesStream = Export;

    async fn export_invoice_batches(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Export>, Status> {
        self.export(request, true).await
    }

    async fn bulk_create(
        &self,
        request: Request<Streaming<CreateInvoiceRequest>>,
    ) -> Result<Response<Bytes>, Status> {
        let _permit = self.open_uploads.try_acquire().map_err(|_| full())?;
        let required = rules::commit_required(request.metadata());
        let mut messages = request.into_inner();
        let mut upload = rules::Upload::default();
        while let Some(message) = timeout(IDLE, messages.message()).await.map_err(|_| idle())?? {
            upload.push(message)?;
        }
        self.create(upload, required).await
    }

    async fn bulk_create_batches(
        &self,
        request: Request<Streaming<CreateInvoiceBatch>>,
    ) -> Result<Response<Bytes>, Status> {
        let _permit = self.open_uploads.try_acquire().map_err(|_| full())?;
        let required = rules::commit_required(request.metadata());
        let mut batches = request.into_inner();
        let mut upload = rules::Upload::default();
        while let Some(batch) = timeout(IDLE, batches.message()).await.map_err(|_| idle())?? {
            batch.requests.into_iter().try_for_each(|message| upload.push(message))?;
        }
        self.create(upload, required).await
    }

    type ReconcileStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    async fn reconcile(
        &self,
        request: Request<Streaming<ReconcileEvent>>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let permit = self.open_reconciles.clone().try_acquire_owned().map_err(|_| full())?;
        let writer = self.writer.clone();
        let batches = tokio_stream::StreamExt::timeout(
            request.into_inner().try_ready_chunks(EVENTS).map_err(|error| error.1),
            IDLE,
        );
        let acks = batches
            .map(move |batch| {
                let _held = &permit;
                let events = batch.map_err(|_| idle()).flatten();
                let answer = events.and_then(|events| writer.submit(move |c| apply(c, &events)));
                async move { answer?.wait().await }
            })
            // The next batch is gathered and handed over while this one is committed.
            .buffered(2)
            .map_ok(|acks| stream::iter(acks.map(Ok)))
            .try_flatten();
        Ok(Response::new(Box::pin(acks)))
    }

    type ReconcileBatchesStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    async fn reconcile_batches(
        &self,
        request: Request<Streaming<ReconcileEventBatch>>,
    ) -> Result<Response<Self::ReconcileBatchesStream>, Status> {
        let permit = self.open_reconciles.clone().try_acquire_owned().map_err(|_| full())?;
        let writer = self.writer.clone();
        let acks = tokio_stream::StreamExt::timeout(request.into_inner(), IDLE)
            .map(move |batch| {
                let _held = &permit;
                let batch = batch.map_err(|_| idle()).flatten();
                let answer = batch.and_then(|batch| writer.submit(move |c| apply_batch(c, &batch)));
                async move { answer?.wait().await }
            })
            .buffered(2);
        Ok(Response::new(Box::pin(acks)))
    }
}

fn apply_batch(connection: &Connection, batch: &ReconcileEventBatch) -> store::Result<Bytes> {
    let totals = Totals::of(connection)?;
    let acks = batch.events.iter().map(|event| reconcile::apply(connection, event, totals));
    let acks = ReconcileAckBatch { acks: acks.collect::<store::Result<_>>()? };
    Ok(acks.encode_to_vec().into())
}

fn apply(connection: &Connection, events: &[ReconcileEvent]) -> store::Result<Messages> {
    let (mut bytes, mut lengths) = (Vec::new(), Vec::with_capacity(events.len()));
    let totals = Totals::of(connection)?;
    for event in events {
        let ack = reconcile::apply(connection, event, totals)?;
        lengths.push(ack.encoded_len() as u32);
        // OK because a Vec has room for everything.
        ack.encode(&mut bytes).expect("a Vec grows");
    }
    Ok(Messages::new(bytes, lengths))
}

/// The client's deadline. tonic applies it to a response's start, not to the life of a stream.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(amount.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

fn full() -> Status {
    Status::resource_exhausted("a limit of the server is reached")
}

fn idle() -> Status {
    Status::deadline_exceeded("idle: nothing came for too long")
}
