//! Which call is let in with which token, and what the others are told.

use billstream::client::Stub;
use billstream::grpcio::{
    CallOption, Channel, ChannelBuilder, Client, EnvBuilder, GrpcSlice, Marshaller, MessageReader,
    Method, MethodType, RpcStatusCode, Service, ServiceBuilder,
};
use billstream::proto::report::{
    ExportEventsRequest, ExportRequest, GetInvoiceRequest, ListInvoicesRequest, SummaryRequest,
};
use billstream::{Config, Server};
use futures::executor::block_on;
use futures::StreamExt;
use std::sync::Arc;

use crate::common::*;
use crate::{line, log_lines, some_token, with_headers, with_token, TokenFile};

/// The code that a call ended with.
fn code<T: std::fmt::Debug>(result: grpcio::Result<T>) -> RpcStatusCode {
    result.map_or_else(|error| status::<()>(Err(error)).code(), |_| RpcStatusCode::OK)
}

const METHODS: [&str; 10] = [
    "GetSummary",
    "ListInvoices",
    "GetInvoice",
    "ExportEvents",
    "ExportInvoices",
    "ExportInvoiceBatches",
    "BulkCreate",
    "BulkCreateBatches",
    "Reconcile",
    "ReconcileBatches",
];

/// A whole call of the method.
fn call(client: &Stub, method: &str, options: CallOption) -> RpcStatusCode {
    let of_stream = |error: Option<grpcio::Error>| code(error.map_or(Ok(()), Err));
    let request = ExportRequest::new();
    match method {
        "GetSummary" => code(client.get_summary(&SummaryRequest::new(), options)),
        "ListInvoices" => code(client.list_invoices(&ListInvoicesRequest::new(), options)),
        // The caller may know that there is none.
        "GetInvoice" => {
            let invoice_id = "none".to_owned();
            let request = GetInvoiceRequest { invoice_id, ..GetInvoiceRequest::default() };
            match code(client.get_invoice(&request, options)) {
                RpcStatusCode::NOT_FOUND => RpcStatusCode::OK,
                other => other,
            }
        }
        "ExportEvents" => {
            let events = client.export_events(&ExportEventsRequest::new(), options);
            of_stream(collect(events.unwrap()).1)
        }
        "ExportInvoices" => {
            of_stream(collect(client.export_invoices(&request, options).unwrap()).1)
        }
        "ExportInvoiceBatches" => {
            of_stream(collect(client.export_invoice_batches(&request, options).unwrap()).1)
        }
        "BulkCreate" => {
            let (mut sink, result) = client.bulk_create(options).unwrap();
            code(block_on(async {
                half_close(&mut sink).await;
                result.await
            }))
        }
        "BulkCreateBatches" => {
            let (mut sink, result) = client.bulk_create_batches(options).unwrap();
            code(block_on(async {
                half_close(&mut sink).await;
                result.await
            }))
        }
        "Reconcile" => {
            let (mut sink, acks) = client.reconcile(options).unwrap();
            block_on(half_close(&mut sink));
            of_stream(collect(acks).1)
        }
        "ReconcileBatches" => {
            let (mut sink, acks) = client.reconcile_batches(options).unwrap();
            block_on(half_close(&mut sink));
            of_stream(collect(acks).1)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn each_method_is_let_in_with_its_right_alone() {
    let tokens: Vec<_> = (0..6).map(some_token).collect();
    let rights = ["read", "write", "admin", "read,write", "write,admin", "read"];
    let mut text: String =
        tokens.iter().zip(rights).map(|(token, rights)| line("a", rights, token)).collect();
    text = text.trim_end().to_owned() + " expires=2001-01-01T00:00:00Z\n";
    let file = TokenFile::new(&text);
    let mut server = TestServer::start(file.config());
    let client = server.client();
    for method in METHODS {
        let needed = if METHODS[..6].contains(&method) { "read" } else { "write" };
        for (token, rights) in tokens.iter().zip(rights).take(5) {
            let expected = match rights.split(',').any(|right| right == needed) {
                true => RpcStatusCode::OK,
                false => RpcStatusCode::PERMISSION_DENIED,
            };
            assert_eq!(call(&client, method, with_token(token)), expected, "{method}, {rights}");
        }
        for options in [CallOption::default(), with_token(&tokens[5]), with_token("other")] {
            let refused = call(&client, method, options);
            assert_eq!(refused, RpcStatusCode::UNAUTHENTICATED, "{method}");
        }
    }
    server.stop();
}

#[test]
fn the_answer_has_the_class_of_the_reason_and_the_log_has_the_rest() {
    log_lines::keep();
    let [read, write, old, unknown] = [10, 11, 12, 13].map(some_token);
    let text = line("reader-of-answers", "read", &read)
        + &line("writer-of-answers", "write", &write)
        + line("old-of-answers", "read", &old).trim_end()
        + " expires=2001-01-01T00:00:00Z\n";
    let file = TokenFile::new(&text);
    let mut server = TestServer::start(file.config());
    let client = server.client();
    let bearer = |token: &str| format!("Bearer {token}");
    let (unauthenticated, denied) =
        (RpcStatusCode::UNAUTHENTICATED, RpcStatusCode::PERMISSION_DENIED);
    let cases: [(&[&str], _, &str, &str); 7] = [
        (&[], unauthenticated, "missing token", ""),
        (&[&bearer(&unknown)], unauthenticated, "unknown token", ""),
        (&[&bearer(&old)], unauthenticated, "expired token", " (old-of-answers)"),
        (&[&bearer(&write)], denied, "token without the right read", " (writer-of-answers)"),
        (&["Basic eDp5"], unauthenticated, "malformed authorization header", ""),
        (&[&read], unauthenticated, "malformed authorization header", ""),
        (
            &[&bearer(&read), &bearer(&read)],
            unauthenticated,
            "more than one authorization header",
            "",
        ),
    ];
    for (headers, code, class, name) in cases {
        let refused = client.get_summary(&SummaryRequest::new(), with_headers(headers));
        let status = assert_status(refused, code, class);
        assert_eq!((status.message(), status.details()), (class, &b""[..]));
        let expected =
            format!("to /billing.v1.ReportService/GetSummary was refused: {class}{name}; ");
        eventually("the line of a refusal", || !log_lines::with(&expected).is_empty());
    }
    let metrics = server.get().metrics();
    assert_eq!((metrics.calls_unauthenticated.get(), metrics.calls_denied.get()), (6, 1));
    assert_eq!(metrics.calls_failed.get(), 7);
    assert_eq!(
        code(client.get_summary(&SummaryRequest::new(), with_token(&read))),
        RpcStatusCode::OK
    );
    server.stop();
    for token in [read, write, old, unknown] {
        assert_eq!(log_lines::with(&token), [""; 0], "a token in the log");
    }
}

/// Bytes in and out, of a service beside ours.
fn method(name: &'static str) -> Method<Vec<u8>, Vec<u8>> {
    let marshaller = || Marshaller { ser: write, de: read };
    Method { ty: MethodType::Unary, name, req_mar: marshaller(), resp_mar: marshaller() }
}

#[allow(clippy::ptr_arg)] // What a `Marshaller` takes.
fn write(bytes: &Vec<u8>, to: &mut GrpcSlice) -> grpcio::Result<()> {
    *to = GrpcSlice::from(bytes.clone());
    Ok(())
}

fn read(mut from: MessageReader) -> grpcio::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut from, &mut bytes).unwrap();
    Ok(bytes)
}

const OWN: &str = "/own.Service/Get";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

fn own_service() -> Service {
    let builder = ServiceBuilder::new();
    let builder = [OWN, HEALTH].into_iter().fold(builder, |builder, name| {
        builder.add_unary_handler(&method(name), |ctx, bytes, sink| {
            // An error is a call that is over already.
            ctx.spawn(async { drop(sink.success(bytes).await) });
        })
    });
    builder.build()
}

fn connected(server: &Server) -> Channel {
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    ChannelBuilder::new(env)
        .raw_cfg_int(c"grpc.enable_http_proxy".to_owned(), 0)
        .connect(&server.addr().to_string())
}

#[test]
fn a_service_beside_ours_needs_the_right_to_write_and_health_needs_nothing() {
    let [read, write] = [20, 21].map(some_token);
    let file = TokenFile::new(&(line("r", "read", &read) + &line("w", "write", &write)));
    let dir = tempfile::tempdir().unwrap();
    let config = Config { db: dir.path().join("bills.db"), ..file.config() };
    let server =
        Server::builder(config).service(own_service()).listen(["127.0.0.1:0"]).start().unwrap();
    let client = Client::new(connected(&server));
    let call = |name, options| code(client.unary_call(&method(name), &Vec::new(), options));
    let none = || CallOption::default().timeout(DEADLINE);
    assert_eq!(call(OWN, none()), RpcStatusCode::UNAUTHENTICATED);
    assert_eq!(call(OWN, with_token(&read)), RpcStatusCode::PERMISSION_DENIED);
    assert_eq!(call(OWN, with_token(&write)), RpcStatusCode::OK);
    assert_eq!(call(HEALTH, none()), RpcStatusCode::OK);
    assert_eq!(call(HEALTH, with_headers(&["nonsense"])), RpcStatusCode::OK);
    // Who is in the process needs no token.
    assert_eq!(server.local().summary(&SummaryRequest::new()).unwrap().invoice_count, 0);
    server.shutdown().unwrap();
}

#[test]
fn a_stream_that_is_refused_ends_without_a_message() {
    let token = some_token(30);
    let file = TokenFile::new(&line("r", "read", &token));
    let mut server = TestServer::start(file.config());
    let client = server.client();
    let (_events, mut acks) = client.reconcile(with_token(&token)).unwrap();
    let ended = block_on(acks.next()).unwrap();
    assert_status(ended, RpcStatusCode::PERMISSION_DENIED, "token without the right write");
    server.stop();
}
