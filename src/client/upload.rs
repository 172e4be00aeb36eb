//! Invoices to be created, all of them or none.

use super::{grpc, local, Client, Code, Error, Result, Transport};
use crate::proto::report::{BulkCommit, BulkResult, CreateInvoiceRequest};
use crate::stop::Stop;

/// A writer of the invoices of one upload: nothing is created before [`Upload::commit`], and then all of it. An
/// upload that is dropped without it is cancelled, and creates nothing, whatever the network does.
///
/// Over gRPC rows go out in batches of 512, fewer where they are large. After an error the upload is over, and has created
/// nothing, unless it was [`Upload::commit`] that failed: then a second upload of the same rows with the same batch
/// id is certain to create nothing twice. [`Retry`](super::Retry) has an example.
pub struct Upload {
    /// `None` after it failed.
    call: Option<Call>,
    client: Client,
    count: i64,
}

/// The call that is open.
enum Call {
    Grpc(Box<grpc::Upload>),
    Local(Box<local::Upload>),
}

impl Call {
    fn send(&mut self, request: &CreateInvoiceRequest, stop: &Stop) -> Result<()> {
        match self {
            Call::Grpc(upload) => upload.send(request, stop),
            Call::Local(upload) => upload.send(request, stop),
        }
    }

    /// Says that there are no more, and waits for the result.
    fn finish(self, stop: &Stop) -> Result<BulkResult> {
        match self {
            Call::Grpc(upload) => upload.finish(stop),
            Call::Local(upload) => upload.finish(stop),
        }
    }
}

impl Upload {
    pub(super) fn open(client: &Client) -> Result<Upload> {
        let call = match &client.transport {
            Transport::Grpc(connection) => Call::Grpc(Box::new(connection.upload()?)),
            Transport::Local(local) => Call::Local(Box::new(local.upload()?)),
        };
        Ok(Upload { call: Some(call), client: client.clone(), count: 0 })
    }

    /// Adds an invoice, whose `commit` must not be set. Blocks while the server takes no more.
    ///
    /// # Errors
    ///
    /// How the server ended the upload, maybe for a row that was sent before: INVALID_ARGUMENT with violations of
    /// fields such as `requests[3].currency`, counted from 0; ALREADY_EXISTS for a taken `invoice_id`;
    /// RESOURCE_EXHAUSTED past its limits. FAILED_PRECONDITION after the first of them.
    pub fn send(&mut self, invoice: &CreateInvoiceRequest) -> Result<()> {
        self.add(invoice)?;
        self.count += 1;
        Ok(())
    }

    /// Creates all that was sent, and says what that is. `batch_id` (128 bytes at the most) names this content for
    /// ever: where it was created before, that result comes back with `already_applied`. With an empty one the
    /// upload is not remembered.
    ///
    /// # Errors
    ///
    /// As [`Upload::send`]; ABORTED where the batch id was used for other content.
    pub fn commit(self, batch_id: &str) -> Result<BulkResult> {
        self.finish(batch_id, false)
    }

    /// Says what [`Upload::commit`] would give now, its errors among it. Nothing is created, and the batch id is not
    /// remembered.
    ///
    /// # Errors
    ///
    /// As [`Upload::commit`]; FAILED_PRECONDITION where the server is too old to be asked, and the upload was given
    /// up; PERMISSION_DENIED for a token without the right "read" beside "write".
    ///
    /// ```no_run
    /// use billstream::client::{Client, Error};
    /// use billstream::proto::report::CreateInvoiceRequest;
    ///
    /// fn would_create(client: &Client, invoices: &[CreateInvoiceRequest]) -> Result<i64, Error> {
    ///     let mut upload = client.upload()?;
    ///     invoices.iter().try_for_each(|invoice| upload.send(invoice))?;
    ///     Ok(upload.validate("")?.created_count)
    /// }
    /// ```
    pub fn validate(self, batch_id: &str) -> Result<BulkResult> {
        self.client.require_validation()?;
        self.finish(batch_id, true)
    }

    fn finish(mut self, batch_id: &str, validate_only: bool) -> Result<BulkResult> {
        let batch_id = batch_id.to_owned();
        let commit =
            BulkCommit { batch_id, count: self.count, validate_only, ..Default::default() };
        self.add(&CreateInvoiceRequest { commit: Some(commit).into(), ..Default::default() })?;
        let call = self.call.take().ok_or_else(is_over)?;
        call.finish(&self.client.stop)
    }

    fn add(&mut self, request: &CreateInvoiceRequest) -> Result<()> {
        let call = self.call.as_mut().ok_or_else(is_over)?;
        call.send(request, &self.client.stop).inspect_err(|_| self.call = None)
    }
}

fn is_over() -> Error {
    Error::new(Code::FailedPrecondition, "the upload is over: it failed before")
}
