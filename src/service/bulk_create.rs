//! BulkCreate and BulkCreateBatches: an upload that is whole or absent.
//!
//! The requests are staged as they come, and one job of the writer creates them. The call is
//! watched until the commit: grpcio shows a cancel as the end of the requests, like a half-close,
//! and tells of it a moment later.

use std::path::PathBuf;
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{poll_fn, select, Either};
use futures::{Sink, StreamExt};
use futures_timer::Delay;
use grpcio::{DuplexSink, RpcContext, WriteFlags};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::Created;
use crate::peer::Peer;
use crate::proto::report::{BulkResult, CreateInvoiceRequest};
use crate::service::call::{send, Call, Requests};
use crate::service::codec::{parse, Request};
use crate::service::unary::total_message;
use crate::service::watch::Watch;
use crate::service::wire::OfRows;
use crate::service::{validate, Shared};
use crate::stop::Reason;
use crate::store::staged::Staged;
use crate::workers::Refused;

/// Request metadata by which a client says that its upload will end in a commit.
const COMMIT_HEADER: (&str, &[u8]) = ("billstream-commit", b"required");

/// For threads that are not the server's: gRPC lets any thread of the process that waits for events,
/// that of a client in the same program too, read any connection. 5 ms were enough in 10,000 tries
/// on two cores with a load of 20, 1 ms was not.
const SETTLE: Duration = Duration::from_millis(10);

type Results = DuplexSink<BulkResult>;

/// `M` is a message of the stream.
pub fn bulk_create<M: OfRows<Row = CreateInvoiceRequest>>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut requests: Requests<M>,
    mut sink: Results,
) {
    let call = Call::new(shared, &ctx);
    let needs_commit = needs_commit(&ctx);
    ctx.spawn(async move {
        let result = match call.first(&mut requests).await {
            Ok(first) => {
                Box::pin(admitted(&call, first, &mut requests, &mut sink, needs_commit)).await
            }
            Err(error) => Err(error),
        };
        call.count(&result);
        call.finish(sink, requests, &result).await;
    });
}

/// Whether the client said that a commit will come. Any other word is refused: who misspells a safety must
/// not go without it.
fn needs_commit(ctx: &RpcContext<'_>) -> Result<bool> {
    let (name, required) = COMMIT_HEADER;
    let mut words = ctx.request_headers().iter().filter(|(header, _)| *header == name).peekable();
    let is_said = words.peek().is_some();
    match words.all(|(_, word)| word == required) {
        true => Ok(is_said),
        false => Err(Error::invalid(name, "has the one value \"required\", or is left out")),
    }
}

/// An upload whose first request came, or which ended without one.
async fn admitted<M: OfRows<Row = CreateInvoiceRequest>>(
    call: &Call,
    first: Option<Request<M>>,
    requests: &mut Requests<M>,
    sink: &mut Results,
    needs_commit: Result<bool>,
) -> Result<()> {
    let (needs_commit, shared) = (needs_commit?, &call.shared);
    let peer = call.peer();
    let _permit = shared.limits.admit(&shared.limits.uploads, &peer)?;
    let watch = Watch::new(call);
    watch.guard(upload(shared, &peer, first, requests, sink, &watch, needs_commit)).await
}

async fn upload<M: OfRows<Row = CreateInvoiceRequest>>(
    shared: &Arc<Shared>,
    peer: &Peer,
    first: Option<Request<M>>,
    requests: &mut Requests<M>,
    sink: &mut Results,
    watch: &Watch,
    needs_commit: bool,
) -> Result<()> {
    let (mut upload, mut next) = (Upload::new(shared), first);
    while let Some(request) = next {
        upload.take(request, &shared.config)?;
        if upload.staged.memory_bytes() >= shared.config.upload_memory_bytes {
            upload.spill(shared, peer).await?;
        }
        // An error is a call that is over.
        next =
            watch.idle.during(requests.next()).await.transpose().map_err(|_| Error::Cancelled)?;
    }
    if upload.commit.is_none() {
        if needs_commit {
            return Err(Error::Aborted("the upload ended without its commit".to_owned()));
        }
        settle(shared, sink).await?;
    }
    let (batch_id, created) = upload.create(shared, sink).await?;
    send(sink, result_message(batch_id, created)?, WriteFlags::default()).await
}

/// What came of an upload so far.
struct Upload {
    staged: Staged,
    /// Requests that came.
    requests: usize,
    /// Their bytes on the wire.
    bytes: usize,
    /// The batch_id of the commit, when it came.
    commit: Option<String>,
    max_rows: usize,
    max_bytes: usize,
}

impl Upload {
    fn new(shared: &Shared) -> Upload {
        Upload {
            staged: Staged::default(),
            requests: 0,
            bytes: 0,
            commit: None,
            max_rows: shared.config.max_upload_rows,
            max_bytes: shared.config.max_upload_bytes,
        }
    }

    /// Takes a message of one request, or of many.
    fn take<M: OfRows>(&mut self, message: Request<M>, config: &Config) -> Result<()> {
        self.bytes += message.bytes();
        if self.bytes > self.max_bytes {
            return Err(exhausted("max_upload_bytes", self.max_bytes));
        }
        let index = self.requests;
        let what = format_args!("requests[{index}]");
        message.rows(what, config, |request| self.take_request(request))
    }

    fn take_request(&mut self, request: &[u8]) -> Result<()> {
        let index = self.requests;
        self.requests += 1;
        let request: CreateInvoiceRequest = parse(format_args!("requests[{index}]"), request)?;
        if self.commit.is_some() {
            let what = format!("requests[{index}]");
            return Err(Error::invalid(what, "came after the commit, which is the last message"));
        }
        if request.commit.is_some() {
            return self.take_commit(request, index);
        }
        if self.staged.rows() == self.max_rows {
            return Err(exhausted("max_upload_rows", self.max_rows));
        }
        self.staged.push(&validate::invoice(&request, index)?);
        Ok(())
    }

    fn take_commit(&mut self, request: CreateInvoiceRequest, index: usize) -> Result<()> {
        let (batch_id, count) = validate::commit(request, index)?;
        if count != self.staged.rows() as i64 {
            let rows = self.staged.rows();
            let message = format!("the commit counts {count} invoices, and {rows} came");
            return Err(Error::Aborted(message));
        }
        self.commit = Some(batch_id);
        Ok(())
    }

    /// Moves the staged rows to disk, on the thread for that. The requests that follow wait, so the
    /// client is held by its flow control.
    async fn spill(&mut self, shared: &Shared, peer: &Peer) -> Result<()> {
        let dir = spool_dir(shared);
        let mut staged = std::mem::take(&mut self.staged);
        let (reply, spilled) = oneshot::channel();
        let job = move || {
            let result = staged.spill(&dir);
            // OK to fail: the call is over.
            let _ = reply.send(result.map(|()| staged));
        };
        // Dropped with the call, it takes the job out. There is room for every upload.
        let _ticket = shared.spool.submit(peer, job).map_err(|refused| match refused {
            Refused::Stopped => Error::from(Reason::Stopping),
            Refused::Full(_) => {
                shared.limits.exhausted("too many uploads wait for the disk".to_owned())
            }
        })?;
        self.staged = spilled.await.map_err(|_| lost_job())??;
        Ok(())
    }

    /// Hands the upload to the writer, and takes it back when the call is cancelled.
    async fn create(self, shared: &Shared, sink: &mut Results) -> Result<(String, Created)> {
        let batch_id = self.commit.unwrap_or_default();
        let reply = shared.store.create(batch_id.clone(), self.staged)?;
        match select(pin!(cancelled(sink)), reply).await {
            // Dropping the reply takes the job back.
            Either::Left(_) => Err(Error::Cancelled),
            Either::Right((created, _)) => {
                let created = created?;
                if !created.already_applied {
                    shared.metrics.invoices_created.add(created.count as u64);
                }
                Ok((batch_id, created))
            }
        }
    }
}

/// Waits until the news of a cancel must have come, if there was one; then looks for it. The end of
/// the requests and the cancel are two events of one moment, but the thread that reads the
/// connection may be held up between them: see [`Echoes`](crate::service::echo::Echoes).
async fn settle(shared: &Shared, sink: &mut Results) -> Result<()> {
    shared.echoes.call().await;
    Delay::new(SETTLE).await;
    match poll_fn(|cx| Poll::Ready(Pin::new(&mut *sink).poll_ready(cx))).await {
        Poll::Ready(Err(_)) => Err(Error::Cancelled),
        _ => Ok(()),
    }
}

/// Ready when the call is over.
async fn cancelled(sink: &mut Results) {
    poll_fn(|cx| match Pin::new(&mut *sink).poll_ready(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await
}

fn spool_dir(shared: &Shared) -> PathBuf {
    let config = &shared.config;
    let beside = config.db.parent().filter(|dir| !dir.as_os_str().is_empty());
    match config.spool_dir.as_os_str().is_empty() {
        false => config.spool_dir.clone(),
        true => beside.map_or_else(|| PathBuf::from("."), PathBuf::from),
    }
}

fn exhausted(limit: &str, max: usize) -> Error {
    let message = format!("{limit}: an upload may have {max} at the most");
    Error::Exhausted { message, retry_after: None }
}

fn lost_job() -> Error {
    Error::Internal("a job of an upload was dropped".to_owned())
}

fn result_message(batch_id: String, created: Created) -> Result<BulkResult> {
    let total_cents = match &created.totals[..] {
        [one] => Some(one.total_cents),
        _ => None,
    };
    Ok(BulkResult {
        created_count: created.count,
        total_cents,
        totals: created.totals.into_iter().map(total_message).collect::<Result<_>>()?,
        first_sequence: created.first_sequence,
        last_sequence: created.last_sequence,
        batch_id,
        already_applied: created.already_applied,
        ..Default::default()
    })
}
