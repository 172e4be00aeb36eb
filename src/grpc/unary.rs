//! GetSummary, ListInvoices and GetInvoice on gRPC.

use std::sync::Arc;

use futures::FutureExt;
use grpcio::{ClientStreamingSink, RpcContext};

use crate::calls::status::status;
use crate::calls::unary::{self, Answer, Page, Query, Read};
use crate::config::Config;
use crate::error::Result;
use crate::grpc::call::{is_over, Call, Requests};
use crate::grpc::codec::{Encoded, Request};
use crate::grpc::status::encoded;
use crate::grpc::Shared;
use crate::method::Method;
use crate::proto::report::{GetInvoiceRequest, ListInvoicesRequest, Summary, SummaryRequest};

pub fn get_summary(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    requests: Requests<SummaryRequest>,
    sink: ClientStreamingSink<Encoded>,
) {
    let query = |config: &Config, request: Request<SummaryRequest>| {
        unary::summary(request.message("SummaryRequest", config.filter_bytes())?)
    };
    let encode = |summary: Summary| Encoded::of(&summary);
    answer(shared, ctx, Method::GetSummary, requests, sink, query, encode);
}

pub fn list_invoices(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    requests: Requests<ListInvoicesRequest>,
    sink: ClientStreamingSink<Encoded>,
) {
    let query = |config: &Config, request: Request<ListInvoicesRequest>| {
        let request = request.message("ListInvoicesRequest", config.filter_bytes())?;
        unary::page(config, &request)
    };
    let encode = |page: Page| Ok(page.response.into());
    answer(shared, ctx, Method::ListInvoices, requests, sink, query, encode);
}

pub fn get_invoice(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    requests: Requests<GetInvoiceRequest>,
    sink: ClientStreamingSink<Encoded>,
) {
    let query = |config: &Config, request: Request<GetInvoiceRequest>| {
        unary::invoice(config, request.message("GetInvoiceRequest", config.filter_bytes())?)
    };
    let encode = |page: Page| Ok(page.response.into());
    answer(shared, ctx, Method::GetInvoice, requests, sink, query, encode);
}

/// Makes a query of the message of the call, runs it, and sends its result.
fn answer<M, A, R>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    method: Method,
    mut requests: Requests<M>,
    mut sink: ClientStreamingSink<Encoded>,
    query: impl Fn(&Config, Request<M>) -> Result<Query<R>> + Send + 'static,
    encode: impl Fn(A) -> Result<Encoded> + Send + 'static,
) where
    M: protobuf::Message + Send + 'static,
    A: Answer,
    R: Read<A>,
{
    let call = Call::new(shared, &ctx, method);
    sink.set_headers(call.headers(None));
    ctx.spawn(async move {
        let mut place = call.core.sweep.place();
        let request = call.only(&mut place, &mut requests, "the request").await;
        let query = request.and_then(|request| query(&call.core.config, request));
        let result = unary::answer(&call, query, || is_over(&mut requests)).await;
        let result = result.and_then(|(answer, held)| Ok((encode(answer)?, held)));
        result.iter().for_each(|(response, _)| call.sent(1, response.bytes()));
        call.count(&result);
        let (sent, _held) = match result {
            Ok((response, held)) => (sink.success(response), held),
            Err(error) => (sink.fail(encoded(&status(&error))), None),
        };
        // An error here is a call that is over already.
        call.leave(&mut place, sent.map(drop), &mut requests).await;
    });
}
