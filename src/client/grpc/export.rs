//! One call of ExportInvoiceBatches.

use futures::StreamExt;
use grpcio::{ClientSStreamReceiver, Method};

use super::raw::receiving;
use super::status::Addr;
use super::Connection;
use crate::client::{wait, Code, Error, Invoices, Result};
use crate::grpc::methods::EXPORT_INVOICE_BATCHES;
use crate::proto::report::ExportRequest;
use crate::stop::Stop;

const EXPORT: Method<ExportRequest, Vec<u8>> = receiving(&EXPORT_INVOICE_BATCHES);

/// The batches of one call, which is cancelled when this is dropped before its end.
pub struct Batches {
    addr: Addr,
    stream: ClientSStreamReceiver<Vec<u8>>,
}

impl Connection {
    pub fn export(&self, request: &ExportRequest) -> Result<Batches> {
        let stream = self.client.server_streaming(&EXPORT, request, self.options(&[])?);
        let stream = stream.map_err(|error| self.addr.status(error))?;
        Ok(Batches { addr: self.addr.clone(), stream })
    }
}

impl Batches {
    pub fn next(&mut self, stop: &Stop) -> Result<Option<Invoices>> {
        let Some(batch) = wait(stop, self.stream.next())? else { return Ok(None) };
        let batch = batch.map_err(|error| self.addr.status(error))?;
        let invoices = Invoices::from_batch(batch);
        invoices.map(Some).map_err(|error| Error::new(Code::Internal, error.to_string()))
    }
}
