//! Reconcile and ReconcileBatches: two halves that fail as one. The first takes events into a bounded
//! channel; the second takes all that are at hand, has the writer apply them in one job, and gives their
//! acknowledgements after the commit. One owner a half: two senders cannot be written.
//!
//! A batch passes the channel as its events, the last of which is marked. So what waits and what is applied at
//! once are counted in events, whatever the messages are.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::vec::IntoIter;

use futures::{FutureExt, StreamExt};
use protobuf::EnumOrUnknown;

use crate::bridge::{self, Receiver, Sender, TrySendError};
use crate::calls::call::Call;
use crate::calls::limits::Permit;
use crate::calls::live::{Live, Shown};
use crate::calls::rows::{each_row, parse};
use crate::calls::wire::OfRows;
use crate::calls::{validate, Core};
use crate::error::{Error, Result};
use crate::model::{Ack, Event};
use crate::proto::report::{ReconcileAck, ReconcileEvent};
use crate::store::Reply;

/// What passes from the first half to the second.
struct Item {
    /// `None` for a message without events.
    event: Option<Event>,
    /// Whether it is the last of its message.
    is_last: bool,
}

/// Admits the call, which shows itself as `live`. Its halves end together: an error of either is that of the call.
pub fn start(call: &Call, live: &Arc<Live>) -> Result<(Intake, Outlet)> {
    let core = &call.core;
    let permit = core.limits.admit(&core.limits.reconciles, &call.peer())?;
    let (queue, queued) = bridge::bounded(core.config.reconcile_queue_events);
    let (items, max_batch_rows) = (VecDeque::new(), core.config.max_batch_rows);
    let intake = Intake { queue, items, max_batch_rows, live: Arc::clone(live) };
    let outlet = Outlet {
        core: Arc::clone(core),
        queued,
        applied: Vec::new().into_iter(),
        ends: Vec::new().into_iter(),
        acks: Vec::new(),
        under_way: None,
        live: Arc::clone(live),
        _shown: core.streams.show(live),
        _permit: permit,
    };
    Ok((intake, outlet))
}

/// The first half. Dropping it tells the other that there are no more.
pub struct Intake {
    queue: Sender<Item>,
    /// Of the message at hand.
    items: VecDeque<Item>,
    max_batch_rows: usize,
    live: Arc<Live>,
}

impl Intake {
    /// Takes the events of an encoded message, all of it or, with an error, nothing.
    /// [`Intake::poll_hand_over`] is next.
    pub fn take<M: OfRows<Row = ReconcileEvent>>(&mut self, message: &[u8]) -> Result<()> {
        let items = &mut self.items;
        each_row::<M>(M::NAME, message, self.max_batch_rows, |row| {
            let event = match M::IS_BATCH {
                true => parse(format_args!("events[{}]", items.len()), row)?,
                false => parse(M::NAME, row)?,
            };
            items.push_back(Item { event: Some(validate::event(event)), is_last: false });
            Ok(())
        })?;
        self.live.count(1, message.len());
        self.end_message();
        Ok(())
    }

    /// Takes events as one message. [`Intake::poll_hand_over`] is next.
    pub fn push(&mut self, events: impl IntoIterator<Item = ReconcileEvent>) {
        let item = |event| Item { event: Some(validate::event(event)), is_last: false };
        self.items.extend(events.into_iter().map(item));
        self.end_message();
    }

    fn end_message(&mut self) {
        self.live.rows.fetch_add(self.items.len() as u64, Ordering::Relaxed);
        match self.items.back_mut() {
            Some(last) => last.is_last = true,
            None => self.items.push_back(Item { event: None, is_last: true }),
        }
    }

    /// Hands what was taken over, when there is room; [`Error::Cancelled`] when the other half is gone.
    pub fn poll_hand_over(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some(item) = self.items.pop_front() {
            match self.queue.try_send(item) {
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => return Poll::Ready(Err(Error::Cancelled)),
                Err(TrySendError::Full(item)) => {
                    self.items.push_front(item);
                    self.live.fill(self.queue.queued());
                    ready!(self.queue.poll_ready(context));
                }
            }
        }
        self.live.fill(self.queue.queued());
        Poll::Ready(Ok(()))
    }
}

/// The second half.
pub struct Outlet {
    core: Arc<Core>,
    queued: Receiver<Item>,
    /// What was applied and not given yet.
    applied: IntoIter<(String, Ack)>,
    /// How many of those each message has that ended among them, where it is not told yet.
    ends: IntoIter<usize>,
    /// Of the message at hand.
    acks: Vec<ReconcileAck>,
    /// What the writer has. An error is told after the acknowledgements of what was applied before.
    under_way: Option<Result<Batch>>,
    live: Arc<Live>,
    _shown: Shown,
    _permit: Permit,
}

impl Outlet {
    /// Applies the events at hand, and waits for some. False when there are no more.
    ///
    /// The next ones are with the writer before this gives the acknowledgements of the last, so that neither waits
    /// for the other.
    pub fn poll_apply(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        if self.under_way.is_none() {
            match ready!(self.queued.poll_next_unpin(context)) {
                Some(first) => self.under_way = Some(self.submit(first)),
                None => return Poll::Ready(Ok(false)),
            }
        }
        let acks = match &mut self.under_way {
            Some(Ok(Batch { reply: Some(reply), .. })) => ready!(reply.poll_unpin(context))?,
            _ => Vec::new(),
        };
        self.live.writer.end();
        // What is left is of a message that has not ended.
        self.acks.extend(self.applied.by_ref().map(ack_message));
        let Batch { events, ends, .. } = self.under_way.take().transpose()?.unwrap_or_default();
        let ids = Arc::unwrap_or_clone(events).into_iter().map(|event| event.event_id);
        self.applied = ids.zip(acks).collect::<Vec<_>>().into_iter();
        self.ends = ends.into_iter();
        self.under_way = self.queued.try_recv().map(|first| self.submit(first));
        Poll::Ready(Ok(true))
    }

    /// Hands `first` and all at hand to the writer.
    fn submit(&mut self, first: Item) -> Result<Batch> {
        let most = self.core.config.reconcile_batch_events;
        let (events, ends) = at_hand(first, &mut self.queued, most);
        self.live.fill(self.queued.queued());
        self.live.writer.begin();
        let events = Arc::new(events);
        let apply = || self.core.store.apply(Arc::clone(&events));
        let reply = (!events.is_empty()).then(apply).transpose()?;
        Ok(Batch { reply, events, ends })
    }

    /// The acknowledgements of the next message that is applied whole, to be taken out; `None` where there is
    /// none at hand.
    pub fn answer(&mut self) -> Option<&mut Vec<ReconcileAck>> {
        let end = self.ends.next()?;
        self.acks.extend(self.applied.by_ref().take(end).map(ack_message));
        self.core.metrics.events_acknowledged.add(self.acks.len() as u64);
        Some(&mut self.acks)
    }

    /// All acknowledgements at hand, wherever the messages end.
    pub fn answers(&mut self) -> Vec<ReconcileAck> {
        self.ends = Vec::new().into_iter();
        self.acks.extend(self.applied.by_ref().map(ack_message));
        self.core.metrics.events_acknowledged.add(self.acks.len() as u64);
        std::mem::take(&mut self.acks)
    }

    /// Whether [`Outlet::answer`] has one more.
    pub fn has_answer(&self) -> bool {
        self.ends.len() > 0
    }
}

/// Events that the writer applies.
#[derive(Default)]
struct Batch {
    /// `None` where there are none, in messages without events.
    reply: Option<Reply<Vec<Ack>>>,
    events: Arc<Vec<Event>>,
    /// How many events each message has that ends among them.
    ends: Vec<usize>,
}

/// The events at hand, `max` at the most; and of each message that ends among them, how many of them it has.
fn at_hand(first: Item, queued: &mut Receiver<Item>, max: usize) -> (Vec<Event>, Vec<usize>) {
    let (mut events, mut ends, mut ended) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(Item { event, is_last }) = next {
        events.extend(event);
        if is_last {
            ends.push(events.len() - ended);
            ended = events.len();
        }
        next = (events.len() < max).then(|| queued.try_recv()).flatten();
    }
    (events, ends)
}

fn ack_message((event_id, ack): (String, Ack)) -> ReconcileAck {
    ReconcileAck {
        event_id,
        outcome: EnumOrUnknown::from_i32(ack.outcome),
        invoice_status: EnumOrUnknown::from_i32(ack.invoice_status),
        outstanding_cents: ack.outstanding_cents,
        duplicate: ack.duplicate,
        message: ack.message,
        ..Default::default()
    }
}
