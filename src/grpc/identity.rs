//! Who calls, by the certificate that TLS has verified.

use std::sync::Arc;

use grpcio::{AuthContext, CheckResult, RpcContext, RpcStatus, RpcStatusCode, ServerChecker};

use crate::error::quoted;
use crate::grpc::Shared;

/// The names of the C core for those in a certificate: of the subject, and all alternative ones.
const NAMES: [&str; 2] = ["x509_common_name", "x509_subject_alternative_name"];

/// The name that a client's certificate is known by: its first alternative one, or the common name where it has
/// none. `None` where the client showed none.
pub fn certificate_name(shared: &Shared, ctx: &RpcContext<'_>) -> Option<Arc<str>> {
    let auth = certificate(shared, ctx)?;
    let mut names = auth.peer_identity();
    names.find_map(|name| Some(name.value_str().ok()?.into()))
}

/// All names of a client's certificate; the one that it is known by comes first.
pub fn certificate_names(shared: &Shared, ctx: &RpcContext<'_>) -> Vec<String> {
    let Some(auth) = certificate(shared, ctx) else { return Vec::new() };
    let known_by = auth.peer_identity().filter_map(|name| name.value_str().ok());
    known_by.chain(names(&auth)).map(str::to_owned).collect()
}

/// Where clients are asked for one.
fn certificate(shared: &Shared, ctx: &RpcContext<'_>) -> Option<AuthContext> {
    let is_asked = !shared.core.config.tls_client_ca.as_os_str().is_empty();
    is_asked.then(|| ctx.auth_context()).flatten()
}

fn names(auth: &AuthContext) -> impl Iterator<Item = &str> {
    let names = auth.into_iter().filter(|property| NAMES.contains(&property.name()));
    names.filter_map(|name| name.value_str().ok())
}

/// Lets in the clients of `tls_allowed_clients`, to whichever service they come.
#[derive(Clone)]
pub struct AllowedClients(Arc<Shared>);

impl AllowedClients {
    /// `None` where all that have a certificate may call.
    pub fn new(shared: &Arc<Shared>) -> Option<AllowedClients> {
        let is_asked = !shared.core.config.tls_allowed_clients.is_empty();
        is_asked.then(|| AllowedClients(Arc::clone(shared)))
    }

    fn is_allowed(&self, ctx: &RpcContext<'_>) -> bool {
        let allowed = &self.0.core.config.tls_allowed_clients;
        let is_named = ctx.auth_context().is_some_and(|auth| {
            names(&auth).any(|name| allowed.iter().any(|allowed| allowed == name))
        });
        // Whoever may open the socket file.
        is_named || ctx.peer().starts_with("unix:")
    }

    /// The client hears no more than that; the log has whom it was taken for.
    fn refusal(&self, ctx: &RpcContext<'_>) -> RpcStatus {
        let core = &self.0.core;
        core.metrics.clients_refused.add(1);
        if core.seldom.is_time() {
            let auth = ctx.auth_context();
            let names = auth.iter().flat_map(names).map(quoted).collect::<Vec<_>>();
            let (peer, count) = (ctx.peer(), core.metrics.clients_refused.get());
            log::warn!(
                "a call of {peer} was refused: tls_allowed_clients has none of its names, {}; \
                 {count} so far",
                names.join(", ")
            );
        }
        RpcStatus::with_message(
            RpcStatusCode::PERMISSION_DENIED,
            "this client is not allowed".to_owned(),
        )
    }
}

impl ServerChecker for AllowedClients {
    fn check(&mut self, ctx: &RpcContext<'_>) -> CheckResult {
        match self.is_allowed(ctx) {
            true => CheckResult::Continue,
            false => CheckResult::Abort(self.refusal(ctx)),
        }
    }

    fn box_clone(&self) -> Box<dyn ServerChecker> {
        Box::new(self.clone())
    }
}
