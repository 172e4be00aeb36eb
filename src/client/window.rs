//! The events of a stream that are under way.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures::StreamExt;

use super::batch::Batch;
use super::{Code, Error, Result};
use crate::bridge::Receiver;
use crate::error::quoted;
use crate::proto::report::{ReconcileAck, ReconcileEvent};

/// Events that were sent and may be without their acknowledgement; then no more go out.
const MAX_UNACKED: usize = 32_768;

/// The most events of a message. A lone event goes at once, and many cost one; more of them save nothing that can
/// be measured, and a server may be told to take fewer.
const MAX_ROWS: usize = 512;

/// The events that have no acknowledgement yet, in their order.
#[derive(Default)]
pub struct Window {
    pub unacked: VecDeque<ReconcileEvent>,
    /// How many of them were sent in the call at hand.
    pub sent: usize,
    batch: Batch,
}

impl Window {
    /// Takes the events at hand, as long as there is room. False when no more can come.
    pub fn take(
        &mut self,
        queued: &mut Receiver<ReconcileEvent>,
        context: &mut Context<'_>,
    ) -> bool {
        while self.unacked.len() < MAX_UNACKED {
            match queued.poll_next_unpin(context) {
                Poll::Ready(Some(event)) => self.unacked.push_back(event),
                Poll::Ready(None) => return false,
                Poll::Pending => return true,
            }
        }
        true
    }

    /// The next batch to send; `None` where all events were sent.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>> {
        for event in self.unacked.range(self.sent..) {
            if self.batch.is_full(MAX_ROWS) {
                break;
            }
            self.batch.push(event)?;
            self.sent += 1;
        }
        Ok((!self.batch.is_empty()).then(|| self.batch.take()))
    }

    /// The next events to send, as they are; `None` where all were sent.
    pub fn next_events(&mut self) -> Option<impl Iterator<Item = &ReconcileEvent>> {
        let from = self.sent;
        self.sent = self.unacked.len().min(from + MAX_ROWS);
        (self.sent > from).then(|| self.unacked.range(from..self.sent))
    }

    /// Takes the events that `acks` are for out of the window.
    pub fn acked(&mut self, acks: &[ReconcileAck]) -> Result<()> {
        for ack in acks {
            let event = self.unacked.pop_front().filter(|_| self.sent > 0);
            let expected = event.as_ref().map_or("none", |event| &event.event_id);
            // An id that is too long is not said again.
            if event.is_none() || expected != ack.event_id && !ack.event_id.is_empty() {
                let (got, expected) = (quoted(&ack.event_id), quoted(expected));
                let message = format!("the server acknowledged {got}, expected {expected}");
                return Err(Error::new(Code::Internal, message));
            }
            self.sent -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge;
    use crate::proto::report::ReconcileEventBatch;
    use protobuf::Message;

    fn window(ids: impl IntoIterator<Item = usize>) -> Window {
        let event = |id: usize| ReconcileEvent { event_id: id.to_string(), ..Default::default() };
        Window { unacked: ids.into_iter().map(event).collect(), ..Window::default() }
    }

    fn ack(id: usize) -> ReconcileAck {
        ReconcileAck { event_id: id.to_string(), ..Default::default() }
    }

    fn ids(batch: Result<Option<Vec<u8>>>) -> Vec<String> {
        let batch = ReconcileEventBatch::parse_from_bytes(&batch.unwrap().unwrap()).unwrap();
        batch.events.into_iter().map(|event| event.event_id).collect()
    }

    #[test]
    fn events_go_in_batches_and_again_until_they_are_acknowledged() {
        let mut window = window(0..MAX_ROWS + 2);
        assert_eq!(ids(window.next()).len(), MAX_ROWS);
        assert_eq!(ids(window.next()), [(MAX_ROWS).to_string(), (MAX_ROWS + 1).to_string()]);
        assert_eq!(window.next(), Ok(None));
        window.acked(&(0..MAX_ROWS).map(ack).collect::<Vec<_>>()).unwrap();
        window.sent = 0;
        assert_eq!(ids(window.next()), [(MAX_ROWS).to_string(), (MAX_ROWS + 1).to_string()]);
    }

    #[test]
    fn an_acknowledgement_of_another_event_is_a_fault_of_the_server() {
        let mut sent = window(0..2);
        sent.next().unwrap();
        let error = sent.acked(&[ack(0), ack(2)]).unwrap_err();
        assert_eq!(error.message, "the server acknowledged \"2\", expected \"1\"");
        let error = window(0..1).acked(&[ack(0)]).unwrap_err();
        assert_eq!(error.message, "the server acknowledged \"0\", expected \"none\"");
    }

    #[test]
    fn the_window_is_bounded() {
        let (sender, mut queued) = bridge::bounded(MAX_UNACKED + 1);
        for _ in 0..MAX_UNACKED + 1 {
            sender.try_send(ReconcileEvent::default()).unwrap();
        }
        let mut window = window([]);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(window.take(&mut queued, &mut context));
        assert_eq!(window.unacked.len(), MAX_UNACKED);
        drop(sender);
        window.unacked.clear();
        assert!(!window.take(&mut queued, &mut context));
        assert_eq!(window.unacked.len(), 1);
    }
}
