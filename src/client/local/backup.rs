//! One backup in process.

use std::task::Poll;

use super::{Local, LocalCall};
use crate::calls::backup::Backup;
use crate::client::Result;
use crate::method::Method;
use crate::proto::admin::BackupChunk;
use crate::stop::Stop;

/// The chunks of one call. Dropping it ends the copy.
pub struct Chunks {
    call: LocalCall,
    backup: Backup,
}

impl Local {
    pub fn backup(&self) -> Result<Chunks> {
        let mut call = LocalCall::new(self, Method::Backup, None);
        let stop = call.call.core.stopping.calls.clone();
        match Backup::start(&call.call, stop) {
            Ok(backup) => Ok(Chunks { call, backup }),
            Err(error) => call.end(Err(error)),
        }
    }
}

impl Chunks {
    pub fn next(&mut self, stop: &Stop) -> Result<Option<BackupChunk>> {
        let Chunks { call, backup } = self;
        let chunk = call.step(stop, |context| match backup.poll_next(context) {
            Poll::Ready(Some(chunk)) => Poll::Ready(Ok(Some(chunk))),
            Poll::Ready(None) => Poll::Ready(backup.end().map(|()| None)),
            Poll::Pending => Poll::Pending,
        })?;
        match chunk {
            Some(chunk) => Ok(Some(chunk)),
            None => call.end(Ok(None)),
        }
    }
}
