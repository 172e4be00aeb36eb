//! One call of an export in batches.

use futures::StreamExt;
use grpcio::{ClientSStreamReceiver, Method};

use super::status::Addr;
use super::Connection;
use crate::client::{wait, Result};
use crate::stop::Stop;

/// The batches of one call, which is cancelled when this is dropped before its end.
pub struct Batches {
    addr: Addr,
    stream: ClientSStreamReceiver<Vec<u8>>,
}

impl Connection {
    /// Calls `method`, which gives batches as they come.
    pub fn export<Q>(&self, method: &Method<Q, Vec<u8>>, request: &Q) -> Result<Batches> {
        let stream = self.client.server_streaming(method, request, self.options(&[])?);
        let stream = stream.map_err(|error| self.addr.status(error))?;
        Ok(Batches { addr: self.addr.clone(), stream })
    }
}

impl Batches {
    pub fn next(&mut self, stop: &Stop) -> Result<Option<Vec<u8>>> {
        let batch = wait(stop, self.stream.next())?;
        batch.transpose().map_err(|error| self.addr.status(error))
    }
}
