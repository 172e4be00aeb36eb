//! The calls in process: on the core of a server, without its transport.
//!
//! A call is under way while a thread waits in it; between two of its steps a stop of the server does not wait for
//! it. Its limits on time are those of queries: what keeps streams of strangers short has no place here.

mod backup;
mod export;
mod opened;
mod reconcile;
mod upload;

use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use protobuf::Message;

pub use backup::Chunks;
pub use export::Batches;
pub use reconcile::Reconcile;
pub use upload::Upload;

use super::{cancelled, Code, Error, Result};
use crate::bridge::wait_while;
use crate::calls::call::{Call, Caller, Open};
use crate::calls::status::status;
use crate::calls::unary::{self, Answer, Page, Query, Read};
use crate::calls::Core;
use crate::config::Config;
use crate::error;
use crate::method::Method;
use crate::proto::report::{
    GetInvoiceRequest, GetInvoiceResponse, ListInvoicesRequest, ListInvoicesResponse, Summary,
    SummaryRequest,
};
use crate::stop::{Reason, Stop};
use opened::Opened;

/// The core of a server in this process.
#[derive(Clone)]
pub struct Local {
    core: Arc<Core>,
    /// Where there is no server, what stands for it. Dropped with the last clone and the last of its calls.
    _opened: Option<Arc<Opened>>,
}

impl Local {
    /// On the core of a server, which stops when it likes.
    pub fn of(core: &Arc<Core>) -> Local {
        Local { core: Arc::clone(core), _opened: None }
    }

    /// On a database that no server has.
    pub fn open(config: Config) -> error::Result<Local> {
        let opened = Opened::start(config)?;
        Ok(Local { core: opened.core(), _opened: Some(Arc::new(opened)) })
    }

    pub fn db(&self) -> String {
        self.core.config.db.display().to_string()
    }

    pub fn is_stopping(&self) -> bool {
        self.core.stopping.waits.is_stopped()
    }

    pub fn summary(
        &self,
        request: &SummaryRequest,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<Summary> {
        self.unary(Method::GetSummary, unary::summary(request.clone()), timeout, stop)
    }

    pub fn list(
        &self,
        request: &ListInvoicesRequest,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<ListInvoicesResponse> {
        let page = unary::page(&self.core.config, request);
        read(self.unary(Method::ListInvoices, page, timeout, stop)?)
    }

    pub fn invoice(
        &self,
        request: &GetInvoiceRequest,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<GetInvoiceResponse> {
        let invoice = unary::invoice(&self.core.config, request.clone());
        read(self.unary(Method::GetInvoice, invoice, timeout, stop)?)
    }

    fn unary<T: Answer>(
        &self,
        method: Method,
        query: error::Result<Query<impl Read<T>>>,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Result<T> {
        let mut call = LocalCall::new(self, method, timeout);
        let callee = Arc::clone(&call.call);
        let mut answer = pin!(unary::answer(&callee, query, || false));
        let (answer, _) = call.step(stop, |context| answer.as_mut().poll(context))?;
        call.end(Ok(answer))
    }
}

fn read<M: Message>(page: Page) -> Result<M> {
    let unreadable = |error| Error::new(Code::Internal, format!("a page is no page: {error}"));
    M::parse_from_bytes(&page.response).map_err(unreadable)
}

/// The name of the callers in this process, who share what one host may have.
const PEER: &str = "in process";

/// One call, which is counted at its end.
struct LocalCall {
    call: Arc<Call>,
    is_over: bool,
    /// A file without a server is open for as long as there is a call.
    _local: Local,
}

impl LocalCall {
    fn new(local: &Local, method: Method, timeout: Option<Duration>) -> LocalCall {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let is_late = move || until.is_some_and(|until| Instant::now() >= until);
        let caller = Caller { address: PEER.to_owned(), identity: None, request_id: None };
        let call = Call::new(&local.core, method, caller, is_late);
        LocalCall { call: Arc::new(call), is_over: false, _local: local.clone() }
    }

    fn stopping(&self) -> Option<Reason> {
        self.call.core.stopping.waits.reason()
    }

    /// A step of the call, which a stop of the server bears with.
    fn open(&self) -> Open {
        Open::new(&self.call.core)
    }
}

impl LocalCall {
    /// Waits for what `poll` gives, which is a step.
    fn step<T>(
        &mut self,
        stop: &Stop,
        poll: impl FnMut(&mut Context<'_>) -> Poll<error::Result<T>>,
    ) -> Result<T> {
        let _open = self.open();
        // Asked after it counts as open: a stop either waits for it, or is seen here.
        if let Some(reason) = self.stopping() {
            // Not one of those that were open when the stop began.
            self.is_over = true;
            return self.end(Err(reason.into()));
        }
        // Between two steps the caller is waited for.
        self.call.spent.client.end();
        let result = wait_while(poll_fn(poll), || !stop.is_stopped());
        self.call.spent.client.begin();
        match result {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) => self.end(Err(error)),
            None => {
                self.count::<()>(&Err(Reason::ClientGone.into()));
                Err(cancelled())
            }
        }
    }

    /// Counts the call, which ended so.
    fn end<T>(&mut self, result: error::Result<T>) -> Result<T> {
        self.count(&result);
        result.map_err(|error| status(&error))
    }

    fn count<T>(&mut self, result: &error::Result<T>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.call.count(result);
        }
    }
}

impl Drop for LocalCall {
    fn drop(&mut self) {
        self.count::<()>(&Err(Reason::ClientGone.into()));
    }
}
