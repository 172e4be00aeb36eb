//! BulkCreate and BulkCreateBatches: an upload that is whole or absent.
//!
//! The requests are staged as they come, and one job of the writer creates them.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use futures::channel::oneshot;
use futures::future::{select, Either};

use crate::calls::call::Call;
use crate::calls::limits::Permit;
use crate::calls::live::{Live, Shown};
use crate::calls::rows::{each_row, parse};
use crate::calls::unary::total_message;
use crate::calls::wire::OfRows;
use crate::calls::{validate, Core};
use crate::error::{Error, Result};
use crate::model::Created;
use crate::peer::Peer;
use crate::proto::report::{BulkCommit, BulkResult, CreateInvoiceRequest};
use crate::stop::Reason;
use crate::store::staged::Staged;
use crate::workers::Refused;

/// What came of an upload that was admitted. Dropped before its end it creates nothing.
pub struct Upload {
    core: Arc<Core>,
    peer: Peer,
    staged: Staged,
    /// Requests that came.
    requests: usize,
    /// Their bytes on the wire.
    bytes: usize,
    /// When it came.
    commit: Option<BulkCommit>,
    live: Arc<Live>,
    _shown: Shown,
    _permit: Permit,
}

impl Upload {
    /// Admits the call, which shows itself as `live`.
    pub fn start(call: &Call, live: &Arc<Live>) -> Result<Upload> {
        let (core, peer) = (Arc::clone(&call.core), call.peer());
        let _permit = core.limits.admit(&core.limits.uploads, &peer)?;
        let (live, _shown, staged) = (Arc::clone(live), core.streams.show(live), Staged::default());
        let (requests, bytes, commit) = (0, 0, None);
        Ok(Upload { core, peer, staged, requests, bytes, commit, live, _shown, _permit })
    }

    /// The name of the next request.
    pub fn what(&self) -> String {
        format!("requests[{}]", self.requests)
    }

    /// Counts the bytes of the next message, which may be too many.
    pub fn count(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        self.live.count(1, bytes);
        self.live.fill(self.bytes);
        let max = self.core.config.max_upload_bytes;
        (self.bytes <= max).then_some(()).ok_or_else(|| exhausted("max_upload_bytes", max))
    }

    /// Takes an encoded message of one request, or of many. [`Upload::make_room`] is next.
    pub fn take<M: OfRows<Row = CreateInvoiceRequest>>(&mut self, message: &[u8]) -> Result<()> {
        let index = self.requests;
        let what = format_args!("requests[{index}]");
        let max_rows = self.core.config.max_batch_rows;
        each_row::<M>(what, message, max_rows, |request| {
            let what = format_args!("requests[{}]", self.requests);
            let request = parse(what, request)?;
            self.push(&request)
        })?;
        Ok(())
    }

    /// Takes one request. [`Upload::make_room`] is next.
    pub fn push(&mut self, request: &CreateInvoiceRequest) -> Result<()> {
        let index = self.requests;
        self.requests += 1;
        if self.commit.is_some() {
            let what = format!("requests[{index}]");
            return Err(Error::invalid(what, "came after the commit, which is the last message"));
        }
        if request.commit.is_some() {
            return self.take_commit(request, index);
        }
        let max_rows = self.core.config.max_upload_rows;
        if self.staged.rows() == max_rows {
            return Err(exhausted("max_upload_rows", max_rows));
        }
        self.staged.push(&validate::invoice(request, index)?);
        self.live.spent.rows.store(self.staged.rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn take_commit(&mut self, request: &CreateInvoiceRequest, index: usize) -> Result<()> {
        let commit = validate::commit(request, index)?;
        let count = commit.count;
        if count != self.staged.rows() as i64 {
            let rows = self.staged.rows();
            let message = format!("the commit counts {count} invoices, and {rows} came");
            return Err(Error::Aborted(message));
        }
        self.commit = Some(commit);
        Ok(())
    }

    /// Whether [`Upload::make_room`] has nothing to do.
    pub fn has_room(&self) -> bool {
        self.staged.memory_bytes() < self.core.config.upload_memory_bytes
    }

    /// Moves the staged rows to disk, where they are more than may stay in memory, on the thread for that. The
    /// requests that follow wait, so the client is held by its flow control.
    pub async fn make_room(&mut self) -> Result<()> {
        if self.has_room() {
            return Ok(());
        }
        let dir = self.core.config.spool_dir().to_owned();
        let mut staged = std::mem::take(&mut self.staged);
        let (reply, spilled) = oneshot::channel();
        let job = move || {
            let result = staged.spill(&dir);
            // OK to fail: the call is over.
            let _ = reply.send(result.map(|()| staged));
        };
        // Dropped with the call, it takes the job out. There is room for every upload.
        let _ticket = self.core.spool.submit(&self.peer, job).map_err(|refused| match refused {
            Refused::Stopped => Error::from(Reason::Stopping),
            Refused::Full(_) => {
                self.core.limits.exhausted("too many uploads wait for the disk".to_owned())
            }
        })?;
        let spool = &self.live.spent.spool;
        spool.begin();
        self.staged = spilled.await.map_err(|_| lost_job())??;
        spool.end();
        Ok(())
    }

    /// Whether its commit came.
    pub fn is_committed(&self) -> bool {
        self.commit.is_some()
    }

    /// Hands the upload to the writer, as a trial where its commit says so, and takes it back where the call is `cancelled` before the result.
    pub async fn create(self, cancelled: impl Future<Output = ()>) -> Result<BulkResult> {
        let commit = self.commit.unwrap_or_default();
        let is_trial = commit.validate_only;
        let reply = self.core.store.create(commit.batch_id.clone(), self.staged, is_trial)?;
        self.live.writer.begin();
        self.live.spent.writer.begin();
        let cancelled = pin!(cancelled);
        let ended = select(cancelled, reply).await;
        self.live.spent.writer.end();
        match ended {
            // Dropping the reply takes the job back.
            Either::Left(_) => Err(Error::Cancelled),
            Either::Right((created, _)) => {
                let created = created?;
                if !created.already_applied && !is_trial {
                    self.core.metrics.invoices_created.add(created.count as u64);
                }
                result_message(commit, created)
            }
        }
    }
}

fn exhausted(limit: &str, max: usize) -> Error {
    let message = format!("{limit}: an upload may have {max} at the most");
    Error::Exhausted { message, retry_after: None }
}

fn lost_job() -> Error {
    Error::Internal("a job of an upload was dropped".to_owned())
}

fn result_message(commit: BulkCommit, created: Created) -> Result<BulkResult> {
    let total_cents = match &created.totals[..] {
        [one] => Some(one.sums.total_cents),
        _ => None,
    };
    Ok(BulkResult {
        created_count: created.count,
        total_cents,
        totals: created.totals.into_iter().map(total_message).collect::<Result<_>>()?,
        first_sequence: created.first_sequence,
        last_sequence: created.last_sequence,
        batch_id: commit.batch_id,
        already_applied: created.already_applied,
        validate_only: commit.validate_only,
        ..Default::default()
    })
}
