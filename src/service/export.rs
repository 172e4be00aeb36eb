//! ExportInvoices and ExportInvoiceBatches.
//!
//! An export has two sides with a bounded channel of chunks between them. The *scan* runs in turns
//! on worker threads and is parked while the channel is full; it is woken like a future, by the
//! room in the channel. The *outflow* is the future of the call: it turns chunks into messages as
//! fast as the client's flow control lets it. Dropping either side ends the other.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::poll_fn;
use futures::task::{waker_ref, ArcWake};
use futures::{ready, Sink, Stream};
use grpcio::{DuplexSink, GrpcSlice, RpcContext, WriteFlags};

use crate::bridge::{self, Receiver, SendTimeoutError, Sender, TrySendError};
use crate::error::{Error, Result};
use crate::peer::Peer;
use crate::proto::report::ExportRequest;
use crate::service::call::{Call, Requests};
use crate::service::codec::{Encoded, Request};
use crate::service::limits::Permit;
use crate::service::watch::Watch;
use crate::service::{validate, Shared};
use crate::stop::{Reason, Stop};
use crate::store::encode::Chunk;
use crate::store::scan::{Ahead, Offer, Scan, Set, Turn};
use crate::workers::Ticket;

type Messages = DuplexSink<Encoded>;

/// How the rows of a chunk become messages.
#[derive(Clone, Copy)]
pub enum Shape {
    Invoices,
    Batches,
}

pub fn export(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut requests: Requests<ExportRequest>,
    mut sink: Messages,
    shape: Shape,
) {
    let call = Call::new(shared, &ctx);
    ctx.spawn(async move {
        let request = call.only(&mut call.shared.sweep.place(), &mut requests, "the request").await;
        let result = match request.and_then(|request| start(&call, request, shape)) {
            Ok(outflow) => Box::pin(outflow.run(&mut sink, &call.shared)).await,
            Err(error) => Err(error),
        };
        call.count(&result);
        call.finish(sink, requests, &result).await;
    });
}

/// Admits the call and schedules its scan.
fn start(call: &Call, request: Request<ExportRequest>, shape: Shape) -> Result<Outflow> {
    let shared = &call.shared;
    let request = request.message("ExportRequest", shared.config.filter_bytes())?;
    let (filter, after, max_rows) = validate::export(request)?;
    // The set is what is committed now, whenever the scan has its first turn.
    let until = shared.store.committed_sequence();
    let peer = call.peer();
    let permit = shared.limits.admit(&shared.limits.exports, &peer)?;
    let config = &shared.config;
    let quick_chunk_bytes = match shape {
        // More would be written by gRPC itself, a fragment of a message at its end.
        Shape::Invoices => config.export_chunk_bytes,
        Shape::Batches => config.quick_batch_bytes(),
    };
    let set = Set { filter, after, until, max_rows };
    let scan = shared.store.scan(set, quick_chunk_bytes);
    let (sender, receiver) = bridge::bounded(shared.config.export_queue_chunks);
    let (verdict, watch) = (Verdict::default(), Watch::new(call));
    let task = Arc::new(ScanTask {
        turn: Mutex::new(Some((scan, sender))),
        is_parked: AtomicBool::new(false),
        place: Mutex::new(Place::None),
        verdict: Arc::clone(&verdict),
        stop: watch.stop.clone(),
        shared: Arc::clone(shared),
        peer,
        _permit: permit,
    });
    let scan = ScanEnd(Arc::clone(&task));
    task.schedule();
    let sent = Sent { before: after, chunk: Chunk::default(), messages: 0 };
    Ok(Outflow { receiver, verdict, shape, sent, watch, scan })
}

/// How the scan ended; `None` while it has not.
type Verdict = Arc<Mutex<Option<Result<()>>>>;

/// The scan of an export between and during its turns.
struct ScanTask {
    /// Taken out for each turn.
    turn: Mutex<Option<(Scan, Sender<Chunk>)>>,
    /// Whether the next wake-up is to schedule a turn.
    is_parked: AtomicBool,
    place: Mutex<Place>,
    verdict: Verdict,
    /// That of the call.
    stop: Stop,
    shared: Arc<Shared>,
    peer: Peer,
    /// As long as the call or a turn of its scan goes on.
    _permit: Permit,
}

/// The place of a scan in the queue for turns.
enum Place {
    /// It has not asked for one.
    None,
    /// That of its last turn, or of the next one.
    Last { _ticket: Ticket },
    /// It gets no more.
    Over,
}

/// The call's hold on its scan: dropped, it takes the scan out of the queue. A turn under way sees that
/// its receiver is gone.
struct ScanEnd(Arc<ScanTask>);

impl Drop for ScanEnd {
    fn drop(&mut self) {
        *self.0.place() = Place::Over;
    }
}

impl ArcWake for ScanTask {
    fn wake_by_ref(task: &Arc<ScanTask>) {
        if task.is_parked.swap(false, Ordering::AcqRel) {
            Arc::clone(task).schedule();
        }
    }
}

impl ScanTask {
    fn schedule(self: Arc<Self>) {
        // Held meanwhile: the turn may be over, and the next one asked for, before this returns.
        let mut place = self.place();
        if matches!(*place, Place::Over) {
            return;
        }
        let task = Arc::clone(&self);
        match self.shared.exports.submit(&self.peer, move || task.run()) {
            Ok(_ticket) => *place = Place::Last { _ticket },
            // The queue has room for every export, so the server is stopping.
            Err(_) => {
                let stopping = Some(Err(Reason::Stopping.into()));
                *self.verdict.lock().unwrap_or_else(|e| e.into_inner()) = stopping;
                drop(self.take());
            }
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn take(&self) -> Option<(Scan, Sender<Chunk>)> {
        self.turn.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    /// One turn. Dropping the sender ends the stream.
    fn run(self: Arc<Self>) {
        let Some((mut scan, sender)) = self.take() else { return };
        let (start, closed) = (Instant::now(), sender.closed());
        let stop = self.stop.when(move || closed.get(), Reason::ClientGone);
        let turn = scan.turn(
            &stop,
            |block| self.ahead(block),
            || self.is_turn_over(&sender, start),
            |chunk| self.offer(&sender, chunk, start),
        );
        let verdict = match turn {
            Ok(Turn::Paused) => return self.park(scan, sender),
            Ok(Turn::Done) => Ok(()),
            Err(error) => Err(error),
        };
        *self.verdict.lock().unwrap_or_else(|e| e.into_inner()) = Some(verdict);
    }

    /// Has an idle thread scan the block, if there is one. Returns how to wait for it.
    fn ahead(&self, block: Ahead) -> Option<impl FnOnce() -> Result<Vec<Chunk>>> {
        let fork = self.shared.exports.fork(&self.peer, block)?;
        Some(move || fork.finish()?)
    }

    fn offer(&self, sender: &Sender<Chunk>, chunk: Chunk, turn_start: Instant) -> Offer {
        match sender.try_send(chunk) {
            Ok(()) if self.is_turn_over(sender, turn_start) => Offer::TakenLast,
            Ok(()) => Offer::Taken,
            Err(TrySendError::Full(chunk)) if !self.shared.exports.has_waiting() => {
                match sender.send_timeout(chunk, millis(self.shared.config.park_after_ms)) {
                    Ok(()) => Offer::TakenLate,
                    Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => {
                        Offer::Refused
                    }
                }
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Offer::Refused,
        }
    }

    /// Whether another scan is better served: one waits for the thread, and this one has had its time or
    /// finds no room for a chunk.
    fn is_turn_over(&self, sender: &Sender<Chunk>, turn_start: Instant) -> bool {
        let turn = millis(self.shared.config.export_turn_ms);
        self.shared.exports.has_waiting() && (sender.is_full() || turn_start.elapsed() >= turn)
    }

    /// Keeps the scan until there is room for its next chunk. It holds no thread and nothing of
    /// SQLite meanwhile.
    fn park(self: Arc<Self>, scan: Scan, sender: Sender<Chunk>) {
        let waker = waker_ref(&self);
        // Before the lock: it may wake here and now. Whatever woke before `is_parked` is seen by the look below.
        let _ = sender.poll_ready(&mut Context::from_waker(&waker));
        let mut turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let (_, sender) = turn.insert((scan, sender));
        self.is_parked.store(true, Ordering::SeqCst);
        let (is_closed, is_full) = (sender.is_closed(), sender.is_full());
        drop(turn);
        if is_closed {
            drop(self.take());
        } else if is_full {
            self.shared.metrics.scans_parked.add(1);
        } else {
            ArcWake::wake_by_ref(&self);
        }
    }
}

/// Messages between two looks at the clock, which would take a fiftieth of the time of each. A client that
/// takes fewer between its pauses counts as one that takes nothing.
const MESSAGES_A_LOOK: usize = 16;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The side of the client.
struct Outflow {
    receiver: Receiver<Chunk>,
    verdict: Verdict,
    shape: Shape,
    sent: Sent,
    watch: Watch,
    scan: ScanEnd,
}

impl Outflow {
    async fn run(self, sink: &mut Messages, shared: &Shared) -> Result<()> {
        let Outflow { mut receiver, verdict, shape, mut sent, watch, scan } = self;
        let flow = flow(sink, &mut receiver, &verdict, shape, &mut sent, &watch, shared);
        let result = watch.guard(flow).await;
        // Ends the scan, if it has not ended.
        drop((receiver, scan));
        let go_on = |why| {
            let cursor = sent.cursor(shape);
            format!("{why}; go on with after_sequence={cursor}")
        };
        result.map_err(|error| match error {
            Error::DeadlineExceeded(why) => Error::DeadlineExceeded(go_on(why)),
            Error::Unavailable(why) => Error::Unavailable(go_on(why)),
            other => other,
        })
    }
}

/// How far the client has been served.
struct Sent {
    /// The last sequence before `chunk`.
    before: i64,
    chunk: Chunk,
    /// Messages of `chunk` that were handed to gRPC, which sends them before any status.
    messages: usize,
}

impl Sent {
    fn begin(&mut self, chunk: Chunk, shape: Shape) {
        *self = Sent { before: self.cursor(shape), chunk, messages: 0 };
    }

    /// The last sequence that was handed to gRPC, or where the client began.
    fn cursor(&self, shape: Shape) -> i64 {
        match (shape, self.messages) {
            (_, 0) => self.before,
            (Shape::Invoices, messages) => self.chunk.sequence(messages - 1),
            (Shape::Batches, _) => self.chunk.sequence(self.chunk.len() - 1),
        }
    }
}

/// Sends every chunk of the scan.
async fn flow(
    sink: &mut Messages,
    receiver: &mut Receiver<Chunk>,
    verdict: &Verdict,
    shape: Shape,
    sent: &mut Sent,
    watch: &Watch,
    shared: &Shared,
) -> Result<()> {
    let mut is_first = true;
    loop {
        // A chunk is taken when there is room for it: one in hand is one more in memory.
        watch.stall.during(poll_fn(|cx| poll_ready(sink, cx))).await?;
        let Some(mut chunk) = next(sink, receiver).await? else { break };
        // Not for the first: most exports are small.
        if !std::mem::take(&mut is_first) {
            shared.poller.chunk_sent();
        }
        let (messages, mut batch) = match shape {
            Shape::Invoices => (chunk.len(), GrpcSlice::default()),
            Shape::Batches => (1, GrpcSlice::from(chunk.take_batch())),
        };
        sent.begin(chunk, shape);
        let send = poll_fn(|cx| {
            let mut waited = true;
            while sent.messages < messages {
                ready!(poll_ready(sink, cx))?;
                if std::mem::take(&mut waited) && sent.messages.is_multiple_of(MESSAGES_A_LOOK) {
                    // The client took something.
                    watch.stall.begin();
                }
                // A chunk is flushed as one: it ends in a frame of its own, and is smaller than what
                // gRPC would write by itself, with a fragment of a message at the end.
                let is_flushed = sent.messages + 1 == messages;
                let message = match shape {
                    Shape::Invoices => sent.chunk.invoice(sent.messages).into(),
                    Shape::Batches => std::mem::take(&mut batch).into(),
                };
                start_send(sink, message, !is_flushed)?;
                sent.messages += 1;
            }
            Poll::Ready(Ok::<(), Error>(()))
        });
        watch.stall.during(send).await?;
    }
    let verdict = verdict.lock().unwrap_or_else(|e| e.into_inner()).take();
    verdict.unwrap_or_else(|| Err(Error::Internal("a scan ended without its last row".to_owned())))
}

/// The next chunk; [`Error::Cancelled`] when the call is over before it.
async fn next(sink: &mut Messages, receiver: &mut Receiver<Chunk>) -> Result<Option<Chunk>> {
    poll_fn(|cx| {
        if let Poll::Ready(chunk) = Pin::new(&mut *receiver).poll_next(cx) {
            return Poll::Ready(Ok(chunk));
        }
        // Room in the sink is of no interest here, only the news that the call is over.
        match poll_ready(sink, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    })
    .await
}

fn poll_ready(sink: &mut Messages, cx: &mut Context<'_>) -> Poll<Result<()>> {
    Pin::new(sink).poll_ready(cx).map_err(|_| Error::Cancelled)
}

fn start_send(sink: &mut Messages, message: Encoded, buffered: bool) -> Result<()> {
    let flags = WriteFlags::default().buffer_hint(buffered);
    Pin::new(sink).start_send((message, flags)).map_err(|_| Error::Cancelled)
}
