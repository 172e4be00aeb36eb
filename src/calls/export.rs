//! ExportInvoices, ExportInvoiceBatches and ExportEvents.
//!
//! An export has two sides with a bounded channel of chunks between them. The *scan* runs in turns
//! on worker threads and is parked while the channel is full; it is woken like a future, by the
//! room in the channel. The other side is the transport's, which takes chunks as fast as the client's flow
//! control lets it. Dropping either side ends the other.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::{waker_ref, ArcWake};
use futures::Stream;

use crate::bridge::{self, Receiver, SendTimeoutError, Sender, TrySendError};
use crate::calls::call::Call;
use crate::calls::limits::Permit;
use crate::calls::live::{Live, Shown};
use crate::calls::spent::Spent;
use crate::calls::wire::Incoming;
use crate::calls::{validate, Core};
use crate::error::{Error, Result};
use crate::peer::Peer;
use crate::proto::report::{ExportEventsRequest, ExportRequest};
use crate::stop::{Reason, Stop};
use crate::store::encode::Chunk;
use crate::store::scan::{Ahead, Offer, Scan, Set, Source, Turn};
use crate::store::Store;
use crate::workers::Ticket;

/// A request for an export.
pub trait Wanted: Incoming + Clone {
    /// The field with the cursor to resume from.
    const CURSOR: &'static str;

    fn cursor(&self) -> i64;

    /// The rows: of those there are what is committed now, whenever the scan has its first turn.
    fn set(self, store: &Store) -> Result<Set>;
}

impl Wanted for ExportRequest {
    const CURSOR: &'static str = "after_sequence";

    fn cursor(&self) -> i64 {
        self.after_sequence
    }

    fn set(self, store: &Store) -> Result<Set> {
        let (filter, after, max_rows) = validate::export(self)?;
        let source = Source::Invoices(filter);
        Ok(Set { until: store.committed(&source), source, after, max_rows })
    }
}

impl Wanted for ExportEventsRequest {
    const CURSOR: &'static str = "after_event_sequence";

    fn cursor(&self) -> i64 {
        self.after_event_sequence
    }

    fn set(self, store: &Store) -> Result<Set> {
        let (after, max_rows) = validate::export_events(&self)?;
        let source = Source::Events;
        Ok(Set { until: store.committed(&source), source, after, max_rows })
    }
}

/// An export that was admitted. Dropping it ends its scan.
pub struct Export {
    chunks: Receiver<Chunk>,
    verdict: Verdict,
    scan: ScanEnd,
}

impl Export {
    /// Admits the call, which shows itself as `live`, and schedules its scan, whose chunks have up to `quick_chunk_bytes` for a client that is
    /// quick, and which ends for `stop` too.
    pub fn start(
        call: &Call,
        live: &Arc<Live>,
        stop: Stop,
        request: impl Wanted,
        quick_chunk_bytes: usize,
    ) -> Result<Export> {
        let core = &call.core;
        let set = request.set(&core.store)?;
        let peer = call.peer();
        let permit = core.limits.admit(&core.limits.exports, &peer)?;
        let scan = core.store.scan(set, quick_chunk_bytes);
        let (sender, chunks) = bridge::bounded(core.config.export_queue_chunks);
        let verdict = Verdict::default();
        let task = Arc::new(ScanTask {
            turn: Mutex::new(Some((scan, sender))),
            is_parked: AtomicBool::new(false),
            place: Mutex::new(Place::None),
            verdict: Arc::clone(&verdict),
            stop,
            core: Arc::clone(core),
            peer,
            live: Arc::clone(live),
            _shown: core.streams.show(live),
            _permit: permit,
        });
        let scan = ScanEnd(Arc::clone(&task));
        task.schedule();
        Ok(Export { chunks, verdict, scan })
    }

    /// The next chunk; `None` after the last one, and then [`Export::end`] tells whether it was the last.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Chunk>> {
        let chunk = Pin::new(&mut self.chunks).poll_next(cx);
        if let Poll::Ready(Some(chunk)) = &chunk {
            let ScanTask { live, core, .. } = &*self.scan.0;
            live.fill(self.chunks.queued());
            live.spent.rows.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            core.metrics.rows_exported.add(chunk.len() as u64);
        }
        chunk
    }

    /// How the scan ended; to be asked once, after its last chunk.
    pub fn end(&self) -> Result<()> {
        let verdict = self.verdict.lock().unwrap_or_else(|e| e.into_inner()).take();
        let lost = || Err(Error::Internal("a scan ended without its last row".to_owned()));
        verdict.unwrap_or_else(lost)
    }
}

/// The error of an export that may go on after `cursor`, with how to.
pub fn go_on<W: Wanted>(error: Error, cursor: i64) -> Error {
    let go_on = |why| format!("{why}; go on with {}={cursor}", W::CURSOR);
    match error {
        Error::DeadlineExceeded(why) => Error::DeadlineExceeded(go_on(why)),
        Error::Unavailable(why) => Error::Unavailable(go_on(why)),
        other => other,
    }
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
    core: Arc<Core>,
    peer: Peer,
    live: Arc<Live>,
    _shown: Shown,
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
            task.live.parked.end();
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
        self.live.spent.queue.begin();
        match self.core.exports.submit(&self.peer, move || task.run()) {
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
        let Spent { queue, database, .. } = &*self.live.spent;
        queue.end();
        database.begin();
        let (start, closed) = (Instant::now(), sender.closed());
        let stop = self.stop.when(move || closed.get(), Reason::ClientGone);
        let turn = scan.turn(
            &stop,
            |block| self.ahead(block),
            || self.is_turn_over(&sender, start),
            |chunk| self.offer(&sender, chunk, start),
        );
        database.end();
        let verdict = match turn {
            Ok(Turn::Paused) => return self.park(scan, sender),
            Ok(Turn::Done) => Ok(()),
            Err(error) => Err(error),
        };
        *self.verdict.lock().unwrap_or_else(|e| e.into_inner()) = Some(verdict);
    }

    /// Has an idle thread scan the block, if there is one. Returns how to wait for it.
    fn ahead(&self, block: Ahead) -> Option<impl FnOnce() -> Result<Vec<Chunk>>> {
        let fork = self.core.exports.fork(&self.peer, block)?;
        Some(move || fork.finish()?)
    }

    fn offer(&self, sender: &Sender<Chunk>, chunk: Chunk, turn_start: Instant) -> Offer {
        let sent = sender.try_send(chunk);
        self.live.fill(sender.queued());
        match sent {
            Ok(()) if self.is_turn_over(sender, turn_start) => Offer::TakenLast,
            Ok(()) => Offer::Taken,
            Err(TrySendError::Full(chunk)) if !self.core.exports.has_waiting() => {
                let database = &self.live.spent.database;
                database.end();
                let sent = sender.send_timeout(chunk, millis(self.core.config.park_after_ms));
                database.begin();
                match sent {
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
        let turn = millis(self.core.config.export_turn_ms);
        self.core.exports.has_waiting() && (sender.is_full() || turn_start.elapsed() >= turn)
    }

    /// Keeps the scan until there is room for its next chunk. It holds no thread and nothing of
    /// SQLite meanwhile.
    fn park(self: Arc<Self>, scan: Scan, sender: Sender<Chunk>) {
        let waker = waker_ref(&self);
        // Before the lock: it may wake here and now. Whatever woke before `is_parked` is seen by the look below.
        let _ = sender.poll_ready(&mut Context::from_waker(&waker));
        let mut turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let (_, sender) = turn.insert((scan, sender));
        // Before `is_parked`: what wakes it ends this.
        self.live.parked.begin();
        self.is_parked.store(true, Ordering::SeqCst);
        let (is_closed, is_full) = (sender.is_closed(), sender.is_full());
        drop(turn);
        if is_closed {
            drop(self.take());
        } else if is_full {
            self.core.metrics.scans_parked.add(1);
        } else {
            ArcWake::wake_by_ref(&self);
        }
    }
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
