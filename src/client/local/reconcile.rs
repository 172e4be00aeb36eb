//! One reconciliation in process.

use std::task::{ready, Context, Poll};

use super::{Local, LocalCall};
use crate::calls::call::Open;
use crate::calls::live::Live;
use crate::calls::reconcile::{start, Intake, Outlet};
use crate::client::Result;
use crate::method::Method;
use crate::proto::report::{ReconcileAck, ReconcileEvent};
use crate::stop::Reason;

/// One call. What was sent before it is dropped may be applied or not.
pub struct Reconcile {
    call: LocalCall,
    /// `None` after the last event.
    intake: Option<Intake>,
    outlet: Outlet,
    /// Why the server takes no more.
    stopping: Option<Reason>,
}

impl Local {
    pub fn reconcile(&self) -> Result<Reconcile> {
        let mut call = LocalCall::new(self, Method::ReconcileBatches, None);
        match start(&call.call, &Live::new(&call.call)) {
            Ok((intake, outlet)) => {
                Ok(Reconcile { call, intake: Some(intake), outlet, stopping: None })
            }
            Err(error) => call.end(Err(error)),
        }
    }
}

impl Reconcile {
    /// For as long as a thread waits for the call.
    pub fn open(&self) -> Open {
        self.call.open()
    }

    /// Ready when events can be sent.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        // Its end is the outlet's to tell.
        match &mut self.intake {
            Some(intake) => intake.poll_hand_over(context).map(|_| Ok(())),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Sends events, maybe as a trial, after [`Reconcile::poll_ready`] was ready.
    pub fn send(&mut self, events: impl IntoIterator<Item = ReconcileEvent>, is_trial: bool) {
        if let Some(intake) = &mut self.intake {
            intake.push(events, is_trial);
        }
    }

    /// Says that there are no more.
    pub fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_ready(context))?;
        self.intake = None;
        Poll::Ready(Ok(()))
    }

    /// The acknowledgements of the next events; `None` at the end of the call.
    pub fn poll_acks(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Vec<ReconcileAck>>>> {
        if let (Some(reason), Some(_)) = (self.call.stopping(), &self.intake) {
            // What was taken is acknowledged before the end.
            self.intake = None;
            self.stopping = Some(reason);
        }
        let client = &self.call.call.spent.client;
        client.end();
        let applied = ready!(self.outlet.poll_apply(context));
        client.begin();
        Poll::Ready(match applied {
            Ok(true) => Some(Ok(self.outlet.answers())),
            Ok(false) => {
                let end = self.stopping.take().map_or(Ok(None), |reason| Err(reason.into()));
                self.call.end(end).transpose()
            }
            Err(error) => Some(self.call.end(Err(error))),
        })
    }
}
