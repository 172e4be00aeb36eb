//! One call of ReconcileBatches.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Sink, StreamExt};
use grpcio::{ClientDuplexReceiver, ClientDuplexSender, Method, WriteFlags};

use super::raw::sending;
use super::status::Addr;
use super::Connection;
use crate::client::Result;
use crate::grpc::methods::RECONCILE_BATCHES;
use crate::proto::report::{ReconcileAck, ReconcileAckBatch};

const RECONCILE: Method<Vec<u8>, ReconcileAckBatch> = sending(&RECONCILE_BATCHES);

/// The call is cancelled when this is dropped before its end.
pub struct Call {
    addr: Addr,
    sink: ClientDuplexSender<Vec<u8>>,
    acks: ClientDuplexReceiver<ReconcileAckBatch>,
}

impl Connection {
    pub fn reconcile(&self) -> Result<Call> {
        let call = self.client.duplex_streaming(&RECONCILE, self.options(&[])?);
        let (sink, acks) = call.map_err(|error| self.addr.status(error))?;
        Ok(Call { addr: self.addr.clone(), sink, acks })
    }
}

/// After a failure to send, and after the end, the sending side is not to be polled again.
impl Call {
    /// Ready when a batch can be sent.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let addr = &self.addr;
        Pin::new(&mut self.sink).poll_ready(context).map_err(|error| addr.status(error))
    }

    /// Sends a batch, after [`Call::poll_ready`] was ready.
    pub fn send(&mut self, batch: Vec<u8>) -> Result<()> {
        let sent = Pin::new(&mut self.sink).start_send((batch, WriteFlags::default()));
        sent.map_err(|error| self.addr.status(error))
    }

    /// Says that there are no more.
    pub fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let addr = &self.addr;
        Pin::new(&mut self.sink).poll_close(context).map_err(|error| addr.status(error))
    }

    /// The next batch of acknowledgements; `None` at the end of the call.
    pub fn poll_acks(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Vec<ReconcileAck>>>> {
        let addr = &self.addr;
        let acks = |batch: grpcio::Result<ReconcileAckBatch>| match batch {
            Ok(batch) => Ok(batch.acks),
            Err(error) => Err(addr.status(error)),
        };
        self.acks.poll_next_unpin(context).map(|batch| batch.map(acks))
    }
}
