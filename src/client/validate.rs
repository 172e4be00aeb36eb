//! What would come of events, with nothing booked.

use std::collections::HashMap;
use std::future::poll_fn;

use protobuf::Message;

use super::reconcile::CallOf;
use super::{wait, Client, Code, Error, Result, Transport};
use crate::proto::report::{GetInvoiceRequest, ReconcileAck, ReconcileEvent};

/// Events and bytes after which a message goes. One of events that belong together may have [`MOST_EVENTS`], which
/// is what a server takes by default, and [`MOST_BYTES`] with one event more.
const ENOUGH_EVENTS: usize = 512;
const MOST_EVENTS: usize = 4096;
const MOST_BYTES: u64 = 1 << 20;

impl Client {
    /// What would come of `events` if they were reconciled now, one after another: an acknowledgement for each, in
    /// their order. Nothing is booked or remembered.
    ///
    /// The server judges the events of one message as if those before them were applied. So events that have an
    /// `event_id` or an `invoice_id` in common, directly or by way of others, go in one message, whatever their
    /// places are: the answer is that of all events in their order, unless the books change meanwhile. Only a total
    /// that would leave 64 bits is not foreseen.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION where the server is too old to be asked, and nothing was sent; and where more events
    /// belong together than one message takes, 4,096 or 1 MiB, and the first of them would change what the others
    /// find. PERMISSION_DENIED for a token without the right "read" beside "write".
    ///
    /// ```
    /// use billstream::proto::report::{ReconcileEvent, ReconcileOutcome};
    /// use billstream::Client;
    /// use protobuf::well_known_types::timestamp::Timestamp;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let db = dir.path().join("bills.db");
    /// let client = Client::open(db)?;
    /// let payment = ReconcileEvent {
    ///     event_id: "event-1".to_owned(),
    ///     invoice_id: "inv-1".to_owned(),
    ///     amount_cents: 500,
    ///     currency: "EUR".to_owned(),
    ///     received_at: Some(Timestamp::now()).into(),
    ///     ..Default::default()
    /// };
    /// let acks = client.validate_events(&[payment])?;
    /// assert_eq!(acks[0].outcome, ReconcileOutcome::RECONCILE_OUTCOME_UNKNOWN_INVOICE.into());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn validate_events(&self, events: &[ReconcileEvent]) -> Result<Vec<ReconcileAck>> {
        self.require_validation()?;
        let mut asking = Asking { client: self, call: None };
        let mut answers = vec![ReconcileAck::default(); events.len()];
        for message in messages(events) {
            let asked: Vec<_> = message.places.iter().map(|&place| &events[place]).collect();
            let acks = asking.ask(&asked)?;
            if message.goes_on && acks.iter().any(is_change) {
                let first = asked.first().map_or("", |event| &event.event_id);
                return Err(too_many(first));
            }
            message.places.iter().zip(acks).for_each(|(&place, ack)| answers[place] = ack);
        }
        asking.finish();
        Ok(answers)
    }

    /// Makes sure that the server knows how to validate: an older one passes over what it does not know, and books.
    /// GetInvoice came with it, and answers a request without an id with INVALID_ARGUMENT.
    pub(super) fn require_validation(&self) -> Result<()> {
        if let Transport::Local(_) = self.transport {
            return Ok(());
        }
        match self.invoice(&GetInvoiceRequest::default()) {
            Err(error) if error.code == Code::InvalidArgument => Ok(()),
            Err(error) if error.code == Code::Unimplemented => Err(Error::new(
                Code::FailedPrecondition,
                "the server is of a version that can only book: it cannot be asked what would come of it, and \
                 nothing was booked",
            )),
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(Code::Internal, "the server gave an invoice without an id")),
        }
    }
}

fn too_many(event_id: &str) -> Error {
    let message = format!(
        "the events that share an invoice or an event_id with event {event_id:?} are more than one message takes, \
         and cannot be judged together; nothing was booked"
    );
    Error::new(Code::FailedPrecondition, message)
}

/// Whether the event would have been applied, and what comes after it finds other books.
fn is_change(ack: &ReconcileAck) -> bool {
    use crate::proto::report::ReconcileOutcome::*;
    let applied = [
        RECONCILE_OUTCOME_PARTIAL,
        RECONCILE_OUTCOME_SETTLED,
        RECONCILE_OUTCOME_OVERPAID,
        RECONCILE_OUTCOME_VOIDED,
    ];
    !ack.duplicate && applied.iter().any(|&outcome| ack.outcome == outcome.into())
}

/// Events that are judged together.
#[derive(Default)]
struct Together {
    /// Which of all events they are, rising in each group of those that belong together.
    places: Vec<usize>,
    /// Whether the next message has more of the same group.
    goes_on: bool,
}

/// Puts groups into messages, each whole where it can be.
fn messages(events: &[ReconcileEvent]) -> Vec<Together> {
    let size = |places: &[usize]| places.iter().map(|&i| events[i].compute_size()).sum::<u64>();
    let (mut messages, mut open, mut open_bytes) = (Vec::new(), Together::default(), 0);
    for group in groups(events) {
        let bytes = size(&group);
        let is_full = open.places.len() + group.len() > ENOUGH_EVENTS;
        if !open.places.is_empty() && (is_full || open_bytes + bytes > MOST_BYTES) {
            messages.push(std::mem::take(&mut open));
            open_bytes = 0;
        }
        if group.len() <= MOST_EVENTS && bytes <= MOST_BYTES {
            open.places.extend(group);
            open_bytes += bytes;
            continue;
        }
        // What is open was sent before: it does not fit beside this one.
        let pieces: Vec<_> = group.chunks(ENOUGH_EVENTS).map(<[usize]>::to_vec).collect();
        let last = pieces.len() - 1;
        let pieces = pieces.into_iter().enumerate();
        messages.extend(pieces.map(|(i, places)| Together { places, goes_on: i < last }));
    }
    messages.push(open);
    messages.retain(|message| !message.places.is_empty());
    messages
}

/// The places of events that share an event_id or an invoice_id, directly or by way of others; each group in the
/// order of the events, and the groups in that of their first.
fn groups(events: &[ReconcileEvent]) -> Vec<Vec<usize>> {
    let (mut by_event, mut by_invoice) = (HashMap::new(), HashMap::new());
    // Of each event an earlier one of its group, or itself where it is the first.
    let mut earlier: Vec<usize> = Vec::with_capacity(events.len());
    for (i, event) in events.iter().enumerate() {
        earlier.push(i);
        let same_id = *by_event.entry(event.event_id.as_str()).or_insert(i);
        let same_invoice = *by_invoice.entry(event.invoice_id.as_str()).or_insert(i);
        let firsts = [same_id, same_invoice].map(|other| first(&mut earlier, other));
        let [low, high] = [firsts[0].min(firsts[1]), firsts[0].max(firsts[1])];
        (earlier[high], earlier[i]) = (low, low);
    }
    let mut groups = vec![Vec::new(); events.len()];
    for i in 0..events.len() {
        groups[first(&mut earlier, i)].push(i);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// The first event of the group of the one at `place`; the way to it is shortened.
fn first(earlier: &mut [usize], mut place: usize) -> usize {
    while earlier[place] != place {
        earlier[place] = earlier[earlier[place]];
        place = earlier[place];
    }
    place
}

/// A call of messages that are judged by themselves, so that each may be sent again.
struct Asking<'a> {
    client: &'a Client,
    call: Option<CallOf>,
}

impl Asking<'_> {
    fn ask(&mut self, events: &[&ReconcileEvent]) -> Result<Vec<ReconcileAck>> {
        let mut retry = self.client.retry();
        loop {
            match self.ask_once(events) {
                Ok(acks) => return Ok(acks),
                Err(error) => {
                    self.call = None;
                    retry.wait(error)?;
                }
            }
        }
    }

    fn ask_once(&mut self, events: &[&ReconcileEvent]) -> Result<Vec<ReconcileAck>> {
        let call = match &mut self.call {
            Some(call) => call,
            None => self.call.insert(CallOf::of(self.client)?),
        };
        let _open = call.open();
        let answered = async {
            // How a call ended is told by its acknowledgements.
            let _ = poll_fn(|context| call.poll_ready(context)).await;
            call.validate(events)?;
            let _ = poll_fn(|context| call.poll_ready(context)).await;
            let mut acks = Vec::with_capacity(events.len());
            while acks.len() < events.len() {
                let ended = || Error::new(Code::Unavailable, "the server ended the stream early");
                let more = poll_fn(|context| call.poll_acks(context)).await;
                acks.extend(more.unwrap_or_else(|| Err(ended()))?);
            }
            Ok(acks)
        };
        let acks: Vec<ReconcileAck> = wait(&self.client.stop, answered)??;
        match acks.len() == events.len() {
            true => Ok(acks),
            false => Err(Error::new(Code::Internal, "the server acknowledged more than was sent")),
        }
    }

    /// Ends the call as one that was not given up. All is known: how it ends makes no difference.
    fn finish(self) {
        let Some(mut call) = self.call else { return };
        let _open = call.open();
        let _ = wait(&self.client.stop, async {
            let _ = poll_fn(|context| call.poll_close(context)).await;
            while let Some(Ok(_)) = poll_fn(|context| call.poll_acks(context)).await {}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(event_id: u32, invoice_id: u32) -> ReconcileEvent {
        let [event_id, invoice_id] = [event_id, invoice_id].map(|id| id.to_string());
        ReconcileEvent { event_id, invoice_id, ..Default::default() }
    }

    proptest! {
        /// Against the closure of having something in common, found the slow way.
        #[test]
        fn what_belongs_together_is_one_group(
            ids in prop::collection::vec((0..20u32, 0..20u32), 0..30),
        ) {
            let events: Vec<_> = ids.iter().map(|&(id, invoice)| event(id, invoice)).collect();
            let mut group: Vec<usize> = (0..ids.len()).collect();
            for _ in &ids {
                for (i, one) in ids.iter().enumerate() {
                    for (j, other) in ids.iter().enumerate() {
                        if one.0 == other.0 || one.1 == other.1 {
                            group[i] = group[i].min(group[j]);
                        }
                    }
                }
            }
            let of = |first| (0..ids.len()).filter(|&i| group[i] == first).collect::<Vec<_>>();
            let expected: Vec<_> = (0..ids.len()).map(of).filter(|of| !of.is_empty()).collect();
            prop_assert_eq!(groups(&events), expected);
        }
    }

    #[test]
    fn a_group_goes_whole_where_a_message_takes_it() {
        let of =
            |invoice: u32, count: u32| (0..count).map(move |i| event((invoice << 16) | i, invoice));
        let events = of(1, 300).chain(of(2, 300)).chain(of(3, 4096)).chain(of(4, 4097));
        let sent = messages(&events.collect::<Vec<_>>());
        let shape: Vec<_> = sent.iter().map(|one| (one.places.len(), one.goes_on)).collect();
        let parts = [&[(512, true); 8][..], &[(1, false)]].concat();
        assert_eq!(shape, [&[(300, false), (300, false), (4096, false)][..], &parts].concat());
    }
}
