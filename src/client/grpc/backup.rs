//! One call of Backup.

use futures::StreamExt;
use grpcio::ClientSStreamReceiver;

use super::status::Addr;
use super::Connection;
use crate::client::{wait, Result};
use crate::grpc::methods::BACKUP;
use crate::proto::admin::{BackupChunk, BackupRequest};
use crate::stop::Stop;

/// The chunks of one call, which is cancelled when this is dropped before its end.
pub struct Chunks {
    addr: Addr,
    stream: ClientSStreamReceiver<BackupChunk>,
}

impl Connection {
    pub fn backup(&self, request: &BackupRequest) -> Result<Chunks> {
        let stream = self.client.server_streaming(&BACKUP, request, self.options(&[])?);
        let stream = stream.map_err(|error| self.addr.status(error))?;
        Ok(Chunks { addr: self.addr.clone(), stream })
    }
}

impl Chunks {
    pub fn next(&mut self, stop: &Stop) -> Result<Option<BackupChunk>> {
        let chunk = wait(stop, self.stream.next())?;
        chunk.transpose().map_err(|error| self.addr.status(error))
    }
}
