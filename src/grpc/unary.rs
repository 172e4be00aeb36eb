//! GetSummary and ListInvoices on gRPC.

use std::sync::Arc;

use futures::FutureExt;
use grpcio::{ClientStreamingSink, RpcContext};

use crate::calls::status::status;
use crate::calls::unary::{self, Answer, Query, Read};
use crate::config::Config;
use crate::error::Result;
use crate::grpc::call::{is_over, Call, Requests};
use crate::grpc::codec::{Encoded, Request};
use crate::grpc::status::encoded;
use crate::grpc::Shared;
use crate::method::Method;
use crate::proto::report::{ListInvoicesRequest, Summary, SummaryRequest};

pub fn get_summary(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    requests: Requests<SummaryRequest>,
    sink: ClientStreamingSink<Summary>,
) {
    answer(shared, ctx, Method::GetSummary, requests, sink, |config, request| {
        unary::summary(request.message("SummaryRequest", config.filter_bytes())?)
    });
}

pub fn list_invoices(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    requests: Requests<ListInvoicesRequest>,
    sink: ClientStreamingSink<Encoded>,
) {
    answer(shared, ctx, Method::ListInvoices, requests, sink, |config, request| {
        let request = request.message("ListInvoicesRequest", config.filter_bytes())?;
        unary::page(config, &request)
    });
}

/// Makes a query of the message of the call, runs it, and sends its result.
fn answer<M, A, T, R>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    method: Method,
    mut requests: Requests<M>,
    sink: ClientStreamingSink<T>,
    query: impl Fn(&Config, Request<M>) -> Result<Query<R>> + Send + 'static,
) where
    M: protobuf::Message + Send + 'static,
    A: Answer,
    T: From<A> + Send + 'static,
    R: Read<A>,
{
    let call = Call::new(shared, &ctx, method);
    ctx.spawn(async move {
        let mut place = call.core.sweep.place();
        let request = call.only(&mut place, &mut requests, "the request").await;
        let query = request.and_then(|request| query(&call.core.config, request));
        let result = unary::answer(&call, query, || is_over(&mut requests)).await;
        call.count(&result);
        let (sent, _held) = match result {
            Ok((response, held)) => (sink.success(response.into()), held),
            Err(error) => (sink.fail(encoded(&status(&error))), None),
        };
        // An error here is a call that is over already.
        call.leave(&mut place, sent.map(drop), &mut requests).await;
    });
}
