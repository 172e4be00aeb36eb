//! A server that refuses, is not there, or would be reached through a proxy: all clients alike.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;
use std::thread;

use billstream::grpc::methods::{
    BULK_CREATE_BATCHES, EXPORT_INVOICES, EXPORT_INVOICE_BATCHES, GET_SUMMARY, LIST_INVOICES,
    RECONCILE_BATCHES,
};
use billstream::proto::error_details::{
    bad_request::FieldViolation, BadRequest, RetryInfo, Status,
};
use billstream::proto::report::{
    BulkResult, ListInvoicesResponse, ReconcileAck, ReconcileAckBatch, ReconcileEvent, Summary,
};
use futures::{FutureExt, SinkExt, StreamExt, TryFutureExt};
use grpcio::{
    ChannelBuilder, EnvBuilder, RpcStatus, RpcStatusCode, ServerBuilder, ServerCredentials,
    Service, ServiceBuilder, WriteFlags,
};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::duration::Duration;
use protobuf::{Message, MessageField};

use super::support::*;

/// A command of each client, and what it reads.
const CLIENTS: [(&[&str], &str); 6] = [
    (&["summary", "--format", "ndjson"], ""),
    (&["list", "--format", "csv"], ""),
    (&["export"], ""),
    (&["export", "--batched"], ""),
    (&["import", "-", "--format", "ndjson"], THREE),
    (
        &["reconcile", "-"],
        "event_id,invoice_id,amount_cents,currency,received_at\n\
                           e1,a,1,USD,2023-01-01T00:00:00Z\n",
    ),
];

fn client(args: &[&str], addr: &str, more: &[&str], input: &str) -> Output {
    run_with_stdin(&[&at(args, addr), more].concat(), input)
}

/// A server that ends the first call of everyone with `status`, and then answers as an empty one.
struct Refusing {
    addr: String,
    _server: grpcio::Server,
}

/// Calls that are still refused.
#[derive(Clone)]
struct Refusals(Arc<AtomicI32>, RpcStatus);

impl Refusals {
    fn next(&self) -> Option<RpcStatus> {
        (self.0.fetch_sub(1, Ordering::SeqCst) > 0).then(|| self.1.clone())
    }
}

impl Refusing {
    fn start(status: RpcStatus) -> Refusing {
        let env = Arc::new(EnvBuilder::new().cq_count(1).build());
        let refusals = Refusals(Arc::new(AtomicI32::new(1)), status);
        let channel = ChannelBuilder::new(Arc::clone(&env)).reuse_port(false);
        let mut server = ServerBuilder::new(env)
            .channel_args(channel.build_args())
            .register_service(service(refusals))
            .build()
            .unwrap();
        let port = server.add_listening_port("127.0.0.1:0", ServerCredentials::insecure()).unwrap();
        server.start();
        Refusing { addr: format!("127.0.0.1:{port}"), _server: server }
    }
}

fn service(refusals: Refusals) -> Service {
    let r = || refusals.clone();
    let (summary, list, export, batches, bulk, reconcile) = (r(), r(), r(), r(), r(), r());
    ServiceBuilder::new()
        .add_unary_handler(&GET_SUMMARY, move |ctx, _, sink| {
            let answer = Summary { last_sequence: 1, ..Summary::default() };
            ctx.spawn(match summary.next() {
                Some(status) => sink.fail(status).map(drop).boxed(),
                None => sink.success(answer).map(drop).boxed(),
            });
        })
        .add_unary_handler(&LIST_INVOICES, move |ctx, _, sink| {
            ctx.spawn(match list.next() {
                Some(status) => sink.fail(status).map(drop).boxed(),
                None => sink.success(ListInvoicesResponse::default()).map(drop).boxed(),
            });
        })
        .add_server_streaming_handler(&EXPORT_INVOICES, move |ctx, _, mut sink| {
            ctx.spawn(match export.next() {
                Some(status) => sink.fail(status).map(drop).boxed(),
                None => async move { sink.close().map(drop).await }.boxed(),
            });
        })
        .add_server_streaming_handler(&EXPORT_INVOICE_BATCHES, move |ctx, _, mut sink| {
            ctx.spawn(match batches.next() {
                Some(status) => sink.fail(status).map(drop).boxed(),
                None => async move { sink.close().map(drop).await }.boxed(),
            });
        })
        .add_client_streaming_handler(&BULK_CREATE_BATCHES, move |ctx, mut rows, sink| {
            let refusal = bulk.next();
            ctx.spawn(async move {
                if let Some(status) = refusal {
                    return drop(sink.fail(status).await);
                }
                while let Some(Ok(_)) = rows.next().await {}
                let _ = sink.success(BulkResult::default()).await;
            });
        })
        .add_duplex_streaming_handler(&RECONCILE_BATCHES, move |ctx, mut events, mut sink| {
            let refusal = reconcile.next();
            ctx.spawn(async move {
                if let Some(status) = refusal {
                    return drop(sink.fail(status).await);
                }
                while let Some(Ok(batch)) = events.next().await {
                    let ack = |event: ReconcileEvent| ReconcileAck {
                        event_id: event.event_id,
                        ..ReconcileAck::default()
                    };
                    let acks = batch.events.into_iter().map(ack).collect();
                    let acks = ReconcileAckBatch { acks, ..ReconcileAckBatch::default() };
                    let _ = sink.send((acks, WriteFlags::default())).await;
                }
                let _ = sink.close().unwrap_or_else(drop).await;
            });
        })
        .build()
}

fn exhausted(wait_millis: Option<i32>) -> RpcStatus {
    let code = RpcStatusCode::RESOURCE_EXHAUSTED;
    let details = wait_millis.map(|millis| {
        let delay = Duration { nanos: millis * 1_000_000, ..Duration::default() };
        let info = RetryInfo { retry_delay: MessageField::some(delay), ..RetryInfo::default() };
        let details = vec![Any::pack(&info).unwrap()];
        Status { code: code.into(), details, ..Status::default() }.write_to_bytes().unwrap()
    });
    RpcStatus::with_details(code, "the queue is full".to_owned(), details.unwrap_or_default())
}

/// INVALID_ARGUMENT, with a violation of each of these fields.
fn invalid(fields: &[&str]) -> RpcStatus {
    let violation = |field: &&str| FieldViolation {
        field: field.to_string(),
        description: "not here".to_owned(),
        ..FieldViolation::default()
    };
    let violations = fields.iter().map(violation).collect();
    let request = BadRequest { field_violations: violations, ..BadRequest::default() };
    let code = RpcStatusCode::INVALID_ARGUMENT;
    let details = vec![Any::pack(&request).unwrap()];
    let status = Status { code: code.into(), details, ..Status::default() };
    RpcStatus::with_details(code, "no".to_owned(), status.write_to_bytes().unwrap())
}

#[test]
fn each_field_that_a_server_refuses_is_told_by_its_line_and_column() {
    let server = Refusing::start(invalid(&[
        "requests[2].memo",
        "requests[0].customer_id",
        "requests[0].memo",
    ]));
    let input = THREE.replace("customer_id", "Kunde").replacen("\nb,", "\n,,,,,\nb,", 1);
    let map = ["--map", "customer_id=Kunde"];
    let output = client(&["import", "-"], &server.addr, &map, &input);
    let said: Vec<_> = output.stderr.lines().filter(|line| line.starts_with("error")).collect();
    let expected = [
        "error: stdin:2: column Kunde (customer_id): \"anna\": the server says: not here",
        "error: stdin:2: column memo: \"\": the server says: not here",
        "error: stdin:5: column memo: \"Zürich\": the server says: not here",
    ];
    assert_eq!((output.code, &said[..]), (2, &expected[..]), "{output:?}");
}

#[test]
fn what_may_pass_is_tried_again_by_every_client() {
    let busy =
        || RpcStatus::with_message(RpcStatusCode::UNAVAILABLE, "the database is busy".to_owned());
    for (args, input) in CLIENTS {
        for (status, said) in [
            (busy(), "UNAVAILABLE: the database is busy; trying again in 100 ms"),
            (exhausted(Some(321)), "RESOURCE_EXHAUSTED: the queue is full; trying again in 321 ms"),
        ] {
            let server = Refusing::start(status.clone());
            let output = client(args, &server.addr, &[], input);
            assert_eq!(output.code, 0, "{args:?}: {output:?}");
            assert!(output.stderr.contains(said), "{args:?}: no {said:?} in {output:?}");
            let server = Refusing::start(status);
            client(args, &server.addr, &["--retry-for-secs", "0"], input).fails(1, "error: ");
        }
    }
}

#[test]
fn what_will_not_pass_is_not_tried_again_by_any_client() {
    let status = |code| RpcStatus::with_message(code, "no".to_owned());
    for (args, input) in CLIENTS {
        for status in [
            exhausted(None),
            status(RpcStatusCode::INTERNAL),
            status(RpcStatusCode::ABORTED),
            status(RpcStatusCode::CANCELLED),
        ] {
            let server = Refusing::start(status);
            let output = client(args, &server.addr, &[], input);
            assert!(!output.stderr.contains("trying again"), "{args:?}: {output:?}");
            assert_eq!(output.code, 1, "{args:?}: {output:?}");
        }
    }
}

#[test]
fn a_wrong_address_is_said_in_plain_words_by_every_client() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // A server, but none of this kind.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = other.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut client in other.incoming().flatten() {
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    for (args, input) in CLIENTS {
        for addr in [&nobody[..], "nowhere.invalid:50051", &web] {
            let output = client(args, addr, &["--retry-for-secs", "0"], input);
            output.fails(1, &format!("error: no server answers at {addr} (UNAVAILABLE: "));
        }
        let output = client(args, &nobody, &["--retry-for-secs", "1"], input);
        let said = "; trying again in 100 ms (giving up after 1 s)";
        assert!(output.stderr.contains(said), "{args:?}: {output:?}");
        output.fails(1, &format!("error: no server answers at {nobody} (UNAVAILABLE: "));
    }
}

#[test]
fn a_proxy_is_used_only_when_it_is_asked_for() {
    let server = Server::with_three();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let summary = |more: &[&str]| {
        let mut command = billstream(&[&at(&["summary"], &server.addr), more].concat());
        for name in ["http_proxy", "https_proxy", "grpc_proxy"] {
            command.env(name, &url);
        }
        for name in ["no_proxy", "NO_PROXY", "no_grpc_proxy"] {
            command.env_remove(name);
        }
        Process::start(command)
    };
    summary(&[]).output().ok();
    // Nobody has connected: the first connection is that of the one that is told to.
    let asked = summary(&["--http-proxy"]);
    let (connection, _) = proxy.accept().unwrap();
    let client = connection.try_clone().unwrap();
    let mut request = BufReader::new(connection).lines().map(Result::unwrap);
    let connect = request.next().unwrap();
    assert!(connect.starts_with(&format!("CONNECT {} HTTP/1.", server.addr)), "{connect}");
    // Its headers, to the blank line.
    request.find(|line| line.is_empty()).unwrap();
    answer(client, &server.addr);
    asked.output().ok();
}

/// Does what the proxy was asked to.
fn answer(mut client: TcpStream, addr: &str) {
    let mut server = TcpStream::connect(addr).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    thread::spawn(move || std::io::copy(&mut server, &mut client));
}
