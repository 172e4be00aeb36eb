//! Who makes a call of gRPC, asked before its handler: also of a service that is not ours.

use std::cell::Cell;
use std::sync::Arc;

use grpcio::{CheckResult, RpcContext, ServerChecker};

use crate::calls::auth::{needs, Gate};
use crate::calls::status::status;
use crate::grpc::identity::certificate_names;
use crate::grpc::status::encoded;
use crate::grpc::Shared;

thread_local! {
    /// Who makes the call that this thread takes. grpcio runs the handler right after the check, on the same
    /// thread, and has no place in a call for what the check found.
    static CALLER: Cell<Option<Arc<str>>> = const { Cell::new(None) };
}

/// Who makes the call whose handler runs on this thread, where a [`Check`] was made.
pub fn caller() -> Option<Arc<str>> {
    CALLER.take()
}

/// The check of every call, to whichever service. (grpcio copies it for each.)
#[derive(Clone)]
pub struct Check {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
}

impl Check {
    /// `None` where nobody is asked.
    pub fn new(shared: &Arc<Shared>) -> Option<Check> {
        let gate = shared.gate.clone()?;
        Some(Check { shared: Arc::clone(shared), gate })
    }
}

impl ServerChecker for Check {
    fn check(&mut self, ctx: &RpcContext<'_>) -> CheckResult {
        // OK because a name that is no UTF-8 is of no method.
        let path = std::str::from_utf8(ctx.method()).unwrap_or_default();
        let headers = ctx.request_headers().iter();
        let headers = headers.filter(|(name, _)| *name == "authorization").map(|(_, value)| value);
        let certificate = || certificate_names(&self.shared, ctx);
        match self.gate.authorize(headers, certificate, needs(path)) {
            Ok(name) => {
                CALLER.set(name);
                CheckResult::Continue
            }
            Err(refused) => {
                let error = self.gate.refused(refused, &ctx.peer(), path);
                self.shared.core.metrics.calls_failed.add(1);
                CheckResult::Abort(encoded(&status(&error)))
            }
        }
    }

    fn box_clone(&self) -> Box<dyn ServerChecker> {
        Box::new(self.clone())
    }
}
