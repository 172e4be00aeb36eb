//! `x-request-id`: taken or made, logged and returned.

use billstream::grpc::methods::{GET_SUMMARY, LIST_INVOICES};
use billstream::proto::report::{ExportRequest, ListInvoicesRequest, SummaryRequest};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, Client, Metadata, Method, MethodType, RpcStatusCode, WriteFlags};

use crate::common::*;
use crate::records::{self, called, with};
use crate::{client, patient};

fn id(headers: &Metadata) -> String {
    let ids: Vec<_> = headers.iter().filter(|(name, _)| *name == "x-request-id").collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    String::from_utf8(ids[0].1.to_vec()).unwrap()
}

/// What the answer to a GetSummary begins with.
fn returned(client: &Client, options: CallOption) -> String {
    let request = SummaryRequest::new();
    let mut call = client.unary_call_async(&GET_SUMMARY, &request, options).unwrap();
    id(block_on(call.headers()).unwrap())
}

#[test]
fn that_of_the_client_is_taken_and_a_bad_one_is_not() {
    records::keep();
    let server = TestServer::start(patient());
    let client = client(&server.addr());
    let longest = "x".repeat(128);
    for good in ["id-of-mine/1", longest.as_str()] {
        assert_eq!(returned(&client, called(good)), good);
        assert_eq!(records::of(good).field("method"), "GetSummary");
    }
    let too_long = "x".repeat(129);
    let made: Vec<String> = ["two words identity=root", too_long.as_str(), ""]
        .map(called)
        .into_iter()
        .chain([CallOption::default().timeout(DEADLINE)])
        .map(|options| returned(&client, options))
        .collect();
    for id in &made {
        assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(records::of(id).field("request_id"), id);
        assert_eq!(made.iter().filter(|other| *other == id).count(), 1, "{made:?}");
    }
    let two = with(&[("x-request-id", "no word"), ("x-request-id", "the-second")]);
    assert_eq!(returned(&client, two), "the-second");
}

#[test]
fn it_is_returned_with_an_error_and_with_the_first_message_of_a_stream() {
    records::keep();
    let server = TestServer::start(patient());
    // As a stream, whose client can read the headers of a call that fails.
    let stream = |method: Method<_, _>| Method { ty: MethodType::ServerStreaming, ..method };
    let request = ListInvoicesRequest { page_size: -1, ..ListInvoicesRequest::default() };
    let grpc = client(&server.addr());
    let mut call =
        grpc.server_streaming(&stream(LIST_INVOICES), &request, called("fails")).unwrap();
    assert_eq!(id(block_on(call.headers()).unwrap()), "fails");
    assert_status(block_on(call.next()).unwrap(), RpcStatusCode::INVALID_ARGUMENT, "page_size");

    let client = server.client();
    upload(&client, [invoice("a", 1)]).unwrap();
    let request = ExportRequest::new();
    let mut rows = client.export_invoices(&request, called("rows")).unwrap();
    assert_eq!(id(block_on(rows.headers()).unwrap()), "rows");
    let mut batches = client.export_invoice_batches(&request, called("batches")).unwrap();
    assert_eq!(id(block_on(batches.headers()).unwrap()), "batches");
    let (mut sink, mut result) = client.bulk_create(called("bulk")).unwrap();
    block_on(sink.send((invoice("b", 1), WriteFlags::default()))).unwrap();
    block_on(half_close(&mut sink));
    assert_eq!(id(block_on(result.headers()).unwrap()), "bulk");
    let (mut sink, mut acks) = client.reconcile(called("acks")).unwrap();
    block_on(sink.send((event("1", "a", 1), WriteFlags::default()))).unwrap();
    assert_eq!(id(block_on(acks.headers()).unwrap()), "acks");
}
