//! The token of a client.

use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;

use billstream::client::{Client, ConnectOptions};
use billstream::grpc::methods::{
    BULK_CREATE_BATCHES, EXPORT_INVOICE_BATCHES, GET_SUMMARY, RECONCILE_BATCHES,
};
use billstream::grpcio::{
    EnvBuilder, RpcContext, RpcStatus, RpcStatusCode, Server, ServerBuilder, ServerCredentials,
    ServiceBuilder,
};
use billstream::proto::report::{ExportRequest, SummaryRequest};

use crate::common::{event, DEADLINE};

type Told = Sender<Vec<(String, String)>>;

/// Tells the metadata of a call, and ends it.
fn refusal(told: &Told, ctx: &RpcContext<'_>) -> RpcStatus {
    let headers = ctx.request_headers().iter();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    told.send(headers.map(|(name, value)| (name.to_owned(), text(value))).collect()).unwrap();
    RpcStatus::new(RpcStatusCode::UNAUTHENTICATED)
}

/// A server that tells of each call what metadata it has.
fn telling(told: Told) -> (Server, String) {
    let [one, two, three, four] = [(); 4].map(|()| told.clone());
    // An error is a call that is over already.
    let service = ServiceBuilder::new()
        .add_unary_handler(&GET_SUMMARY, move |ctx, _, sink| {
            let status = refusal(&one, &ctx);
            ctx.spawn(async { drop(sink.fail(status).await) });
        })
        .add_server_streaming_handler(&EXPORT_INVOICE_BATCHES, move |ctx, _, sink| {
            let status = refusal(&two, &ctx);
            ctx.spawn(async { drop(sink.fail(status).await) });
        })
        .add_client_streaming_handler(&BULK_CREATE_BATCHES, move |ctx, requests, sink| {
            let status = refusal(&three, &ctx);
            ctx.spawn(async { drop((sink.fail(status).await, requests)) });
        })
        .add_duplex_streaming_handler(&RECONCILE_BATCHES, move |ctx, requests, sink| {
            let status = refusal(&four, &ctx);
            ctx.spawn(async { drop((sink.fail(status).await, requests)) });
        })
        .build();
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let mut server = ServerBuilder::new(env).register_service(service).build().unwrap();
    let port = server.add_listening_port("127.0.0.1:0", ServerCredentials::insecure()).unwrap();
    server.start();
    (server, format!("127.0.0.1:{port}"))
}

#[test]
fn a_token_goes_with_every_call() {
    let (told, headers) = channel();
    let (mut server, addr) = telling(told);
    let options = ConnectOptions { token: Some("t-1".to_owned()), ..ConnectOptions::default() };
    let client = Client::connect_with(&addr, &options).unwrap();
    client.summary(&SummaryRequest::default()).unwrap_err();
    client.export(&ExportRequest::default()).next().unwrap().unwrap_err();
    client.upload().unwrap().commit("batch").unwrap_err();
    let (events, mut acks) = client.reconcile().split();
    events.send(event("event", "invoice", 1)).unwrap();
    acks.next().unwrap().unwrap_err();
    let mut commits = 0;
    for _ in 0..4 {
        let headers = headers.recv_timeout(DEADLINE).unwrap();
        let has = |name: &str, value: &str| headers.contains(&(name.to_owned(), value.to_owned()));
        assert!(has("authorization", "Bearer t-1"), "{headers:?}");
        commits += usize::from(has("billstream-commit", "required"));
    }
    assert_eq!(commits, 1, "an upload is still told from the others");
    futures::executor::block_on(server.shutdown()).unwrap();
}
