//! Reconcile and ReconcileBatches: two halves that fail as one. The first takes events into a bounded
//! channel; the second takes all that are at hand, has the writer apply them in one job, and gives their
//! acknowledgements after the commit. One owner a half: two senders cannot be written.
//!
//! What passes the channel is counted in bytes, until its acknowledgements are given, and what is applied at once
//! in events, whatever the messages are.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::vec::IntoIter;

use futures::{FutureExt, StreamExt};
use protobuf::EnumOrUnknown;

use crate::bridge::{self, Receiver, Sender};
use crate::calls::call::Call;
use crate::calls::held::Held;
use crate::calls::limits::Permit;
use crate::calls::live::{Live, Shown};
use crate::calls::rows::{each_row, parse};
use crate::calls::spent::{during, Spent};
use crate::calls::wire::OfRows;
use crate::calls::{validate, Core};
use crate::config::{EVENT_BYTES, RECONCILE_PART_BYTES};
use crate::error::{Error, Result};
use crate::model::{Ack, Event};
use crate::proto::report::{ReconcileAck, ReconcileEvent};
use crate::store::Reply;

/// Messages, or parts of them, that may wait to be applied: a limit for those of few events.
const MAX_PARTS: usize = 2048;

/// Events of one message on their way from the first half to the second: all of it, or a part of about
/// [`RECONCILE_PART_BYTES`].
#[derive(Default)]
struct Part {
    events: IntoIter<Event>,
    /// What they hold.
    bytes: usize,
    /// Whether its message ends with it.
    is_last: bool,
    /// Whether it is only to be said what would come of it. Then it is all of its message.
    is_trial: bool,
}

/// Admits the call, which shows itself as `live`. Its halves end together: an error of either is that of the call.
pub fn start(call: &Call, live: &Arc<Live>) -> Result<(Intake, Outlet)> {
    let core = &call.core;
    let permit = core.limits.admit(&core.limits.reconciles, &call.peer())?;
    let (queue, queued) = bridge::bounded(MAX_PARTS);
    let held = Arc::new(Held::new(&core.held_by_reconciles, core.config.reconcile_queue_bytes));
    let intake = Intake {
        queue,
        held: Arc::clone(&held),
        message: None,
        is_trial: false,
        part: None,
        max_batch_rows: core.config.max_batch_rows,
        live: Arc::clone(live),
    };
    let outlet = Outlet {
        core: Arc::clone(core),
        queued,
        held,
        part: None,
        applied: Vec::new().into_iter(),
        applied_bytes: 0,
        is_trial: false,
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
    queue: Sender<Part>,
    held: Arc<Held>,
    /// What is not in a part yet of the message at hand.
    message: Option<IntoIter<Event>>,
    /// Whether that is a trial.
    is_trial: bool,
    /// What is to be handed over next.
    part: Option<Part>,
    max_batch_rows: usize,
    live: Arc<Live>,
}

impl Intake {
    /// Takes the events of an encoded message, all of it or, with an error, nothing.
    /// [`Intake::poll_hand_over`] is next.
    pub fn take<M: OfRows<Row = ReconcileEvent>>(&mut self, message: &[u8]) -> Result<()> {
        let mut events = Vec::new();
        self.is_trial = each_row::<M>(M::NAME, message, self.max_batch_rows, |row| {
            let event = match M::IS_BATCH {
                true => parse(format_args!("events[{}]", events.len()), row)?,
                false => parse(M::NAME, row)?,
            };
            events.push(validate::event(event));
            Ok(())
        })?;
        self.live.count(1, message.len());
        self.live.spent.rows.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.message = Some(events.into_iter());
        Ok(())
    }

    /// Takes events as one message, maybe a trial. [`Intake::poll_hand_over`] is next.
    pub fn push(&mut self, events: impl IntoIterator<Item = ReconcileEvent>, is_trial: bool) {
        self.is_trial = is_trial;
        let events: Vec<_> = events.into_iter().map(validate::event).collect();
        self.live.spent.rows.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.message = Some(events.into_iter());
    }

    /// Hands what was taken over, when there is room; [`Error::Cancelled`] when the other half is gone.
    pub fn poll_hand_over(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some(part) = self.part.take().or_else(|| self.next_part()) {
            let bytes = part.bytes;
            self.part = Some(part);
            if self.queue.is_full() {
                ready!(self.queue.poll_ready(context));
            }
            ready!(self.held.poll_take(bytes, context));
            self.live.fill(self.held.bytes());
            if self.part.take().is_some_and(|part| self.queue.try_send(part).is_err()) {
                return Poll::Ready(Err(Error::Cancelled));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when no trial is on its way any more. A trial is all of its message, so that a stream that takes the
    /// next one meanwhile would hold two.
    pub fn poll_tried(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.is_trial {
            true => self.held.poll_empty(context),
            false => Poll::Ready(()),
        }
    }

    fn next_part(&mut self) -> Option<Part> {
        let (message, is_trial) = (self.message.as_mut()?, self.is_trial);
        let mut bytes = 0;
        let rest = message.as_slice();
        let fits = |event: &&Event| {
            let has_room = bytes < RECONCILE_PART_BYTES || is_trial;
            bytes += if has_room { bytes_of(event) } else { 0 };
            has_room
        };
        let count = rest.iter().take_while(fits).count();
        let is_last = count == rest.len();
        let events = match is_last {
            true => self.message.take()?,
            false => message.take(count).collect::<Vec<_>>().into_iter(),
        };
        Some(Part { events, bytes, is_last, is_trial })
    }
}

/// What an event holds of memory, with its acknowledgement, which may name the invoice.
fn bytes_of(event: &Event) -> usize {
    let text = match &event.entry {
        Ok(entry) => 2 * entry.invoice_id.len() + entry.currency.len() + entry.reference.len(),
        Err(violation) => 2 * (violation.field.len() + violation.description.len()),
    };
    EVENT_BYTES + event.event_id.len() + text
}

/// The second half.
pub struct Outlet {
    core: Arc<Core>,
    queued: Receiver<Part>,
    held: Arc<Held>,
    /// What the batch before had no room for.
    part: Option<Part>,
    /// What was applied and not given yet.
    applied: IntoIter<(String, Ack)>,
    /// What those held that were applied last, until all of them are given.
    applied_bytes: usize,
    /// Whether they were a trial.
    is_trial: bool,
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
        let Spent { client, writer, .. } = &*Arc::clone(&self.live.spent);
        // What is left is of a message that has not ended.
        self.acks.extend(self.applied.by_ref().map(ack_message));
        if self.applied_bytes > 0 {
            self.held.give_back(std::mem::take(&mut self.applied_bytes));
            self.live.fill(self.held.bytes());
        }
        if self.under_way.is_none() {
            if self.part.is_none() {
                // Here alone a client that sends nothing is waited for: elsewhere there is something to do meanwhile.
                self.part = ready!(during(client, self.queued.poll_next_unpin(context)));
            }
            match &self.part {
                Some(_) => self.under_way = Some(self.submit()),
                None => return Poll::Ready(Ok(false)),
            }
        }
        let acks = match &mut self.under_way {
            Some(Ok(Batch { reply: Some(reply), .. })) => {
                ready!(during(writer, reply.poll_unpin(context)))?
            }
            _ => Vec::new(),
        };
        self.live.writer.end();
        let Batch { events, ends, bytes, is_trial, .. } =
            self.under_way.take().transpose()?.unwrap_or_default();
        let ids = Arc::unwrap_or_clone(events).into_iter().map(|event| event.event_id);
        self.applied = ids.zip(acks).collect::<Vec<_>>().into_iter();
        (self.ends, self.applied_bytes, self.is_trial) = (ends.into_iter(), bytes, is_trial);
        self.part = self.part.take().or_else(|| self.queued.try_recv());
        self.under_way = self.part.is_some().then(|| self.submit());
        Poll::Ready(Ok(true))
    }

    /// Hands all events at hand to the writer.
    fn submit(&mut self) -> Result<Batch> {
        let mut batch = self.at_hand();
        self.live.writer.begin();
        let apply = || self.core.store.apply(Arc::clone(&batch.events), batch.is_trial);
        batch.reply = (!batch.events.is_empty()).then(apply).transpose()?;
        Ok(batch)
    }

    /// The events at hand, `reconcile_batch_events` at the most; or one message that is a trial.
    fn at_hand(&mut self) -> Batch {
        let max = self.core.config.reconcile_batch_events;
        let (mut events, mut ends, mut ended) = (Vec::new(), Vec::new(), 0);
        while events.len() < max {
            let next = self.part.take().or_else(|| self.queued.try_recv());
            let Some(mut part) = next else { break };
            if part.is_trial {
                if !ends.is_empty() || !events.is_empty() {
                    self.part = Some(part);
                    break;
                }
                let events: Vec<_> = part.events.collect();
                let ends = vec![events.len()];
                return Batch { is_trial: true, ..Batch::of(events, ends) };
            }
            events.extend(part.events.by_ref().take(max - events.len()));
            if part.events.len() > 0 {
                self.part = Some(part);
            } else if part.is_last {
                ends.push(events.len() - ended);
                ended = events.len();
            }
        }
        Batch::of(events, ends)
    }

    /// The acknowledgements of the next message that is applied whole, to be taken out; `None` where there is
    /// none at hand.
    pub fn answer(&mut self) -> Option<&mut Vec<ReconcileAck>> {
        let end = self.ends.next()?;
        self.acks.extend(self.applied.by_ref().take(end).map(ack_message));
        self.count();
        Some(&mut self.acks)
    }

    /// All acknowledgements at hand, wherever the messages end.
    pub fn answers(&mut self) -> Vec<ReconcileAck> {
        self.ends = Vec::new().into_iter();
        self.acks.extend(self.applied.by_ref().map(ack_message));
        self.count();
        std::mem::take(&mut self.acks)
    }

    fn count(&self) {
        if !self.is_trial {
            self.core.metrics.events_acknowledged.add(self.acks.len() as u64);
        }
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
    /// What the events hold.
    bytes: usize,
    /// Whether they are rolled back.
    is_trial: bool,
}

impl Batch {
    fn of(events: Vec<Event>, ends: Vec<usize>) -> Batch {
        let bytes = events.iter().map(bytes_of).sum();
        Batch { events: Arc::new(events), ends, bytes, ..Batch::default() }
    }
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
