//! One export in process.

use std::sync::Arc;
use std::task::Poll;

use super::{Local, LocalCall};
use crate::calls::export::{go_on, Export, Wanted};
use crate::calls::live::Live;
use crate::client::Result;
use crate::method::Method;
use crate::stop::Stop;
use crate::store::encode::Chunk;

/// The batches of one call. Dropping it ends its scan.
pub struct Batches {
    call: LocalCall,
    export: Export,
    live: Arc<Live>,
    /// The last sequence that was given.
    cursor: i64,
}

impl Local {
    pub fn export(&self, method: Method, request: &impl Wanted) -> Result<Batches> {
        let mut call = LocalCall::new(self, method, None);
        let stop = call.call.core.stopping.calls.clone();
        let quick_chunk_bytes = self.core.config.quick_batch_bytes();
        let live = Live::new(&call.call);
        let export = Export::start(&call.call, &live, stop, request.clone(), quick_chunk_bytes);
        match export {
            Ok(export) => Ok(Batches { call, export, live, cursor: request.cursor() }),
            Err(error) => call.end(Err(error)),
        }
    }
}

impl Batches {
    pub fn next<W: Wanted>(&mut self, stop: &Stop) -> Result<Option<Chunk>> {
        let Batches { call, export, live, cursor } = self;
        let chunk = call.step(stop, |context| match export.poll_next(context) {
            Poll::Ready(Some(chunk)) => Poll::Ready(Ok(Some(chunk))),
            Poll::Ready(None) => {
                Poll::Ready(export.end().map(|()| None).map_err(|error| go_on::<W>(error, *cursor)))
            }
            Poll::Pending => Poll::Pending,
        })?;
        let Some(chunk) = chunk else { return call.end(Ok(None)) };
        live.count(1, chunk.batch().len());
        *cursor = chunk.last_sequence();
        Ok(Some(chunk))
    }
}
