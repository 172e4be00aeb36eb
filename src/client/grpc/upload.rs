//! One call of BulkCreateBatches.

use futures::SinkExt;
use grpcio::{ClientCStreamReceiver, ClientCStreamSender, Method, WriteFlags};

use super::raw::sending;
use super::status::Addr;
use super::Connection;
use crate::client::batch::Batch;
use crate::client::{wait, Code, Error, Result};
use crate::grpc::methods::BULK_CREATE_BATCHES;
use crate::proto::report::{BulkResult, CreateInvoiceRequest};
use crate::stop::Stop;

const UPLOAD: Method<Vec<u8>, BulkResult> = sending(&BULK_CREATE_BATCHES);

/// The most rows of a message. Messages of more cost no less a row, and a server may be told to take fewer.
const MAX_ROWS: usize = 512;

/// One upload; the call is cancelled when this is dropped before it is finished.
pub struct Upload {
    addr: Addr,
    sink: ClientCStreamSender<Vec<u8>>,
    result: ClientCStreamReceiver<BulkResult>,
    batch: Batch,
}

impl Connection {
    /// The call says beforehand that it will end in a commit: without one nothing is created, whatever the
    /// network does.
    pub fn upload(&self) -> Result<Upload> {
        let options = self.options(&[("billstream-commit", "required")])?;
        let call = self.client.client_streaming(&UPLOAD, options);
        let (sink, result) = call.map_err(|error| self.addr.status(error))?;
        Ok(Upload { addr: self.addr.clone(), sink, result, batch: Batch::default() })
    }
}

impl Upload {
    /// Adds a request to the batch at hand, which goes when it is full.
    pub fn send(&mut self, request: &CreateInvoiceRequest, stop: &Stop) -> Result<()> {
        self.batch.push(request)?;
        if self.batch.is_full(MAX_ROWS) {
            self.flush(stop)?;
        }
        Ok(())
    }

    /// The batch is under way when this returns, so that the next one can be made meanwhile.
    fn flush(&mut self, stop: &Stop) -> Result<()> {
        match wait(stop, self.sink.feed((self.batch.take(), WriteFlags::default())))? {
            Ok(()) => Ok(()),
            // It only says that the call is over; how it ended is the result's to tell.
            Err(_) => Err(self.end(stop)),
        }
    }

    pub fn finish(mut self: Box<Self>, stop: &Stop) -> Result<BulkResult> {
        if !self.batch.is_empty() {
            self.flush(stop)?;
        }
        // A failure is the result's to tell, here too.
        let _ = wait(stop, self.sink.close())?;
        wait(stop, &mut self.result)?.map_err(|error| self.addr.status(error))
    }

    fn end(&mut self, stop: &Stop) -> Error {
        match wait(stop, &mut self.result) {
            Ok(Ok(_)) => {
                Error::new(Code::Internal, "the server ended the upload before its commit")
            }
            Ok(Err(error)) => self.addr.status(error),
            Err(stopped) => stopped,
        }
    }
}
