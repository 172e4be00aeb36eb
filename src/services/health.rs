//! `grpc.health.v1`: whether a server and its services can do their work.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use futures::future::poll_fn;
use futures::{FutureExt, Sink};
use grpcio::{
    ClientStreamingSink, DuplexSink, Method, MethodType, RpcContext, RpcStatusCode, Service,
    ServiceBuilder, WriteFlags,
};
use protobuf::descriptor::FileDescriptorProto;

use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::{
    self, HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

use super::calls::{closed, leave, Call, Calls, End, Requests};
use super::wire::{self, Received};
use super::Limits;

const CHECK: Method<Received<HealthCheckRequest>, HealthCheckResponse> =
    wire::method(MethodType::Unary, "/grpc.health.v1.Health/Check");
const LIST: Method<Received<HealthListRequest>, HealthListResponse> =
    wire::method(MethodType::Unary, "/grpc.health.v1.Health/List");
const WATCH: Method<Received<HealthCheckRequest>, HealthCheckResponse> =
    wire::method(MethodType::ServerStreaming, "/grpc.health.v1.Health/Watch");

/// Whether a service can do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It can.
    Serving,
    /// It cannot for now.
    NotServing,
}

impl From<Status> for ServingStatus {
    fn from(status: Status) -> ServingStatus {
        match status {
            Status::Serving => ServingStatus::SERVING,
            Status::NotServing => ServingStatus::NOT_SERVING,
        }
    }
}

/// The statuses of the services of a server. All clones are one.
#[derive(Clone)]
pub struct Statuses(Arc<Shared>);

struct Shared {
    statuses: Mutex<BTreeMap<String, Status>>,
    calls: Calls,
}

impl Shared {
    fn statuses(&self) -> MutexGuard<'_, BTreeMap<String, Status>> {
        self.statuses.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn status(&self, service: &str) -> Option<Status> {
        self.statuses().get(service).copied()
    }
}

/// What reflection is to know of it.
pub fn files() -> Vec<FileDescriptorProto> {
    super::reflection::with_imports(health::file_descriptor())
}

impl Statuses {
    /// Of no service yet. `limits` are those of Watch.
    pub fn new(limits: Limits) -> Statuses {
        Statuses(Arc::new(Shared { statuses: Mutex::default(), calls: Calls::new(limits) }))
    }

    /// Sets the status of the service of this full name, or with an empty one that of the server as a whole.
    /// Its Watches hear of it at once.
    pub fn set(&self, service: &str, status: Status) {
        self.0.statuses().insert(service.to_owned(), status);
        self.0.calls.wake();
    }

    /// Ends every call with UNAVAILABLE, after the status that its client has not heard yet. To be called when
    /// the server stops, which would wait for the Watches.
    pub fn close(&self) {
        self.0.calls.close();
    }

    /// The service, to be registered with a gRPC server.
    pub fn service(&self) -> Service {
        let shared = || Arc::clone(&self.0);
        let (check, list, watch) = (shared(), shared(), shared());
        // On the wire these are the kinds that the protocol says: see `calls`.
        ServiceBuilder::new()
            .add_client_streaming_handler(&CHECK, move |ctx, requests, sink| {
                let shared = Arc::clone(&check);
                answer(&check.calls, ctx, requests, sink, move |request: HealthCheckRequest| {
                    shared.check(&request.service)
                });
            })
            .add_client_streaming_handler(&LIST, move |ctx, requests, sink| {
                let shared = Arc::clone(&list);
                answer(&list.calls, ctx, requests, sink, move |_: HealthListRequest| {
                    Ok(shared.list())
                });
            })
            .add_duplex_streaming_handler(&WATCH, move |ctx, requests, sink| {
                watch_handler(&watch, ctx, requests, sink);
            })
            .build()
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into(), ..HealthCheckResponse::default() }
}

impl Shared {
    fn check(&self, service: &str) -> Result<HealthCheckResponse, End> {
        let status = self.status(service);
        let unknown = || End::with(RpcStatusCode::NOT_FOUND, "there is no such service");
        status.map(|status| response(status.into())).ok_or_else(unknown)
    }

    fn list(&self) -> HealthListResponse {
        let statuses = self.statuses();
        let all = statuses.iter().map(|(name, status)| (name.clone(), response((*status).into())));
        HealthListResponse { statuses: all.collect(), ..HealthListResponse::default() }
    }
}

/// Answers a call of one message.
fn answer<Q: Send + 'static, P: Send + 'static>(
    calls: &Calls,
    ctx: RpcContext<'_>,
    mut requests: Requests<Q>,
    sink: ClientStreamingSink<P>,
    answer: impl FnOnce(Q) -> Result<P, End> + Send + 'static,
) {
    let mut call = calls.open(&ctx);
    ctx.spawn(async move {
        let sent = match call.only(&mut requests).await.and_then(answer) {
            Ok(response) => sink.success(response),
            Err(End::With(status)) => sink.fail(status),
            Err(End::Gone) => return,
        };
        leave(sent.map(drop), &mut requests).await;
    });
}

fn watch_handler(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut requests: Requests<HealthCheckRequest>,
    mut sink: DuplexSink<HealthCheckResponse>,
) {
    let (mut call, shared) = (shared.calls.open(&ctx), Arc::clone(shared));
    ctx.spawn(async move {
        let result = match call.only(&mut requests).await {
            Ok(request) => watch(&shared, &mut call, &mut sink, &request.service).await,
            Err(end) => Err(end),
        };
        call.finish(sink, requests, result).await;
    });
}

/// Sends the status of `service` and each other one, until the call ends. A client that is slow misses those
/// that did not last.
async fn watch(
    shared: &Shared,
    call: &mut Call,
    sink: &mut DuplexSink<HealthCheckResponse>,
    service: &str,
) -> Result<(), End> {
    call.enter()?;
    let mut told = None;
    poll_fn(|cx| loop {
        // Also when there is nothing to send: it tells that the call is over.
        let has_room = match Pin::new(&mut *sink).poll_ready(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Gone)),
            ready => ready.is_ready(),
        };
        // Before the look at the status: what changes after it wakes this task.
        let is_closed = call.is_closed(cx);
        let status = shared.status(service).map_or(ServingStatus::SERVICE_UNKNOWN, Into::into);
        if has_room && told != Some(status) {
            let message = (response(status), WriteFlags::default());
            if Pin::new(&mut *sink).start_send(message).is_err() {
                return Poll::Ready(Err(End::Gone));
            }
            told = Some(status);
        } else if is_closed {
            return Poll::Ready(Err(closed()));
        } else {
            return Poll::Pending;
        }
    })
    .await
}
