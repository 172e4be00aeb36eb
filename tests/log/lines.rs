use billstream::client::Stub;
use billstream::proto::report::{
    CreateInvoiceBatch, ExportEventsRequest, ExportRequest, GetInvoiceRequest, ListInvoicesRequest,
    ReconcileEventBatch, SummaryRequest,
};
use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{RpcStatusCode, WriteFlags};
use log::Level;
use protobuf::Message;

use crate::common::*;
use crate::patient;
use crate::records::{self, called, Line};

/// Makes each call once, on a database that is empty: 2 invoices twice, an event for each of the first two, reads.
fn make_all(client: &Stub) {
    let invoices = [invoice("a", 100), invoice("b", 200)];
    let (mut sink, result) = client.bulk_create(called("all-BulkCreate")).unwrap();
    block_on(async {
        for invoice in invoices {
            sink.send((invoice, WriteFlags::default())).await.unwrap();
        }
        half_close(&mut sink).await;
        result.await.unwrap()
    });
    let requests = vec![invoice("c", 300), invoice("d", 400)];
    let (mut sink, result) = client.bulk_create_batches(called("all-BulkCreateBatches")).unwrap();
    let batch = CreateInvoiceBatch { requests, ..CreateInvoiceBatch::default() };
    block_on(async {
        sink.send((batch, WriteFlags::default())).await.unwrap();
        half_close(&mut sink).await;
        result.await.unwrap()
    });
    let (mut sink, acks) = client.reconcile(called("all-Reconcile")).unwrap();
    block_on(async {
        sink.send((event("1", "a", 1), WriteFlags::default())).await.unwrap();
        sink.send((event("2", "b", 1), WriteFlags::default())).await.unwrap();
        half_close(&mut sink).await;
    });
    assert_eq!(collect(acks).0.len(), 2);
    let (mut sink, acks) = client.reconcile_batches(called("all-ReconcileBatches")).unwrap();
    let events = vec![event("3", "a", 1), event("4", "b", 1)];
    let batch = ReconcileEventBatch { events, ..ReconcileEventBatch::default() };
    block_on(async {
        sink.send((batch, WriteFlags::default())).await.unwrap();
        half_close(&mut sink).await;
    });
    assert_eq!(collect(acks).0.len(), 1);
    let request = ExportRequest::new();
    let rows = client.export_invoices(&request, called("all-ExportInvoices")).unwrap();
    assert_eq!(collect(rows).0.len(), 4);
    let id = called("all-ExportInvoiceBatches");
    let rows = client.export_invoice_batches(&request, id).unwrap();
    assert_eq!(collect(rows).0.len(), 1);
    client.get_summary(&SummaryRequest::new(), called("all-GetSummary")).unwrap();
    client.list_invoices(&ListInvoicesRequest::new(), called("all-ListInvoices")).unwrap();
    let request = GetInvoiceRequest { invoice_id: "b".to_owned(), ..GetInvoiceRequest::default() };
    client.get_invoice(&request, called("all-GetInvoice")).unwrap();
    let id = called("all-ExportEvents");
    let rows = client.export_events(&ExportEventsRequest::new(), id).unwrap();
    assert_eq!(collect(rows).0.len(), 1);
}

#[test]
fn each_method_has_a_line_with_its_fields() {
    records::keep();
    let server = TestServer::start(patient());
    make_all(&server.client());
    // Rows, and the messages that have an overhead of their own.
    let rows = [
        ("BulkCreate", 2),
        ("BulkCreateBatches", 2),
        ("Reconcile", 2),
        ("ReconcileBatches", 2),
        ("ExportInvoices", 4),
        ("ExportInvoiceBatches", 4),
        ("GetSummary", 1),
        ("ListInvoices", 4),
        // The invoice and its events.
        ("GetInvoice", 3),
        ("ExportEvents", 4),
    ];
    let line = |method: &str| records::of(&format!("all-{method}"));
    for (method, rows) in rows {
        let line = line(method);
        assert_eq!((line.level, line.field("method")), (Level::Debug, method));
        assert_eq!((line.field("code"), line.number("rows")), ("OK", rows), "{line:?}");
        assert!(line.field("peer").starts_with("ipv4:127.0.0.1:"), "{line:?}");
        assert_eq!((line.field("identity"), line.text.as_str()), ("-", "call ended: OK"));
        assert!(line.number("bytes_sent") > 0, "{line:?}");
        let waits = ["queue_ms", "database_ms", "spool_ms", "writer_ms", "client_ms"];
        assert!(waits.iter().all(|name| line.number(name) <= DEADLINE.as_millis() as u64));
        assert!(line.number("ms") <= DEADLINE.as_millis() as u64, "{line:?}");
    }
    // As many rows in one message are fewer bytes than in many, and nothing is sent for what all are of.
    let bytes = |method, what| line(method).number(what);
    assert_eq!(bytes("GetSummary", "bytes_received"), 0);
    let [one, many] = ["ExportInvoices", "ExportInvoiceBatches"].map(|m| bytes(m, "bytes_sent"));
    assert!(
        one < many && many < 2 * one,
        "a batch has a tag and a length more for each: {one} {many}"
    );
    let expected = [invoice("a", 100), invoice("b", 200)];
    let sizes = expected.iter().map(Message::compute_size);
    assert_eq!(bytes("BulkCreate", "bytes_received"), sizes.sum::<u64>());
}

fn failed(code: &str, id: &str) -> Line {
    let line = records::of(id);
    assert_eq!((line.level, line.field("code")), (Level::Debug, code), "{line:?}");
    line
}

#[test]
fn a_call_that_failed_says_why() {
    records::keep();
    let server = TestServer::start(patient());
    let client = server.client();
    let request = ListInvoicesRequest { page_size: -1, ..ListInvoicesRequest::default() };
    let refused = client.list_invoices(&request, called("fails-list"));
    let told = assert_status(refused, RpcStatusCode::INVALID_ARGUMENT, "page_size");
    let line = failed("INVALID_ARGUMENT", "fails-list");
    assert_eq!(line.text, format!("call ended: {}", told.message()));
    assert_eq!(line.number("rows"), 0);

    let (mut sink, acks) = client.reconcile(called("fails-cancel")).unwrap();
    block_on(sink.send((event("1", "a", 1), WriteFlags::default()))).unwrap();
    eventually("the stream is open", || server.get().streams_open() == 1);
    drop(acks);
    failed("CANCELLED", "fails-cancel");
}

#[test]
fn a_call_in_process_has_a_line_without_a_request_id() {
    records::keep();
    let server = TestServer::start(patient());
    let local = server.get().local();
    local.summary(&SummaryRequest::new()).unwrap();
    let is_of = |line: &&Line| line.text == "call ended: OK" && line.field("peer") == "in process";
    let line = records::all().iter().find(is_of).cloned().unwrap();
    assert_eq!((line.field("request_id"), line.field("method")), ("-", "GetSummary"));
}
