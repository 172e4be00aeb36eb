//! One upload in process.

use std::future::{pending, Future};
use std::pin::pin;

use protobuf::Message;

use super::{Local, LocalCall};
use crate::calls::bulk_create;
use crate::calls::live::Live;
use crate::client::Result;
use crate::method::Method;
use crate::proto::report::{BulkResult, CreateInvoiceRequest};
use crate::stop::Stop;

/// One upload. Dropped before it is finished it creates nothing.
pub struct Upload {
    call: LocalCall,
    upload: bulk_create::Upload,
}

impl Local {
    pub fn upload(&self) -> Result<Upload> {
        let mut call = LocalCall::new(self, Method::BulkCreateBatches, None);
        match bulk_create::Upload::start(&call.call, &Live::new(&call.call)) {
            Ok(upload) => Ok(Upload { call, upload }),
            Err(error) => call.end(Err(error)),
        }
    }
}

impl Upload {
    /// Takes a request. After an error there is nothing more to do with it.
    pub fn send(&mut self, request: &CreateInvoiceRequest, stop: &Stop) -> Result<()> {
        let Upload { call, upload } = self;
        let taken = upload.count(request.compute_size() as usize);
        if let Err(error) = taken.and_then(|()| upload.push(request)) {
            return call.end(Err(error));
        }
        if upload.has_room() && !stop.is_stopped() {
            return Ok(());
        }
        let mut making = pin!(upload.make_room());
        call.step(stop, |context| making.as_mut().poll(context))
    }

    /// Creates all that came; its commit is the last of it.
    pub fn finish(self, stop: &Stop) -> Result<BulkResult> {
        let Upload { mut call, upload } = self;
        let mut creating = pin!(upload.create(pending()));
        let result = call.step(stop, |context| creating.as_mut().poll(context))?;
        call.end(Ok(result))
    }
}
