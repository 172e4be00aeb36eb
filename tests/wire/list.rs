//! ListInvoices.

use billstream::client::Stub;
use billstream::model::MAX_AMOUNT_CENTS;
use billstream::proto::report::{Invoice, InvoiceStatus, ListInvoicesRequest};
use billstream::Config;
use grpcio::{CallOption, RpcStatusCode};
use proptest::prelude::*;

use crate::common::*;

fn pages(client: &Stub, request: &ListInvoicesRequest) -> Vec<Vec<Invoice>> {
    let mut request = request.clone();
    let mut pages = Vec::new();
    loop {
        let response = client.list_invoices(&request, CallOption::default()).unwrap();
        pages.push(response.invoices);
        if response.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = response.next_page_token;
    }
}

#[test]
fn pages_give_every_invoice_once_in_order() {
    let server = TestServer::with_copy(&database(10_000), Config::default());
    let client = server.client();
    let config =
        ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(page_size in 1..3000i32, customer in prop::option::of(0..100i64))| {
        let request = ListInvoicesRequest {
            page_size,
            customer_id: customer.map(|i| format!("cust-{i:03}")).unwrap_or_default(),
            ..ListInvoicesRequest::default()
        };
        let pages = pages(&client, &request);
        let size = (page_size as usize).min(1000);
        let last = pages.len() - 1;
        prop_assert!(pages[..last].iter().all(|page| page.len() == size));
        prop_assert!((1..=size).contains(&pages[last].len()));
        let got = sequences(&pages.concat());
        let matches = |i: &i64| customer.is_none_or(|customer| i % 100 == customer);
        prop_assert_eq!(got, (1..=10_000).filter(matches).collect::<Vec<_>>());
    });
}

#[test]
fn every_field_comes_back() {
    let server = TestServer::start(Config::default());
    let mut request = invoice("ü-1", MAX_AMOUNT_CENTS);
    request.issued_at.as_mut().unwrap().nanos = 123_456_789;
    upload(&server.client(), [request.clone()]).unwrap();
    let [page] = &pages(&server.client(), &ListInvoicesRequest::new())[..] else { panic!() };
    let expected = Invoice {
        sequence: 1,
        invoice_id: request.invoice_id,
        customer_id: request.customer_id,
        total_amount_cents: MAX_AMOUNT_CENTS,
        currency: request.currency,
        status: InvoiceStatus::INVOICE_STATUS_OPEN.into(),
        issued_at: request.issued_at,
        memo: request.memo,
        ..Invoice::default()
    };
    assert_eq!(page, &[expected]);
}

/// A page that finds little ends early and says where to go on, so that none takes as long as the table.
#[test]
fn a_filter_that_matches_little_gets_on_page_by_page() {
    let server = TestServer::with_copy(&database(100_000), Config::default());
    server.sql().execute("UPDATE invoices SET status = 5 WHERE sequence % 40000 = 0", []).unwrap();
    let statuses = vec![InvoiceStatus::INVOICE_STATUS_VOID.into()];
    let request = ListInvoicesRequest { statuses, ..ListInvoicesRequest::default() };
    let sizes = |server: &TestServer, request: &ListInvoicesRequest| {
        let pages = pages(&server.client(), request);
        assert_eq!(sequences(&pages.concat()), [40_000, 80_000]);
        pages.iter().map(Vec::len).collect::<Vec<_>>()
    };
    // Of 50,000 invoices and somewhat more each.
    assert_eq!(sizes(&server, &request), [1, 1]);
    drop(server);
    let config = Config { page_scan_rows: 1024, ..Config::default() };
    let server = TestServer::with_copy(&database(100_000), config);
    server.sql().execute("UPDATE invoices SET status = 5 WHERE sequence % 40000 = 0", []).unwrap();
    let empty = sizes(&server, &request).iter().filter(|size| **size == 0).count();
    assert!(empty > 90, "{empty} pages without an invoice");
    // Of one customer that many are read of his.
    let of_one = ListInvoicesRequest { customer_id: "cust-000".to_owned(), ..request };
    assert_eq!(sizes(&server, &of_one), [2]);
}

#[test]
fn a_token_serves_only_its_filter() {
    let server = TestServer::with_copy(&database(10_000), Config::default());
    let client = server.client();
    let list = |request: &ListInvoicesRequest| client.list_invoices(request, CallOption::default());
    let mut request = ListInvoicesRequest { page_size: 2, ..ListInvoicesRequest::default() };
    request.page_token = list(&request).unwrap().next_page_token;
    // The size may change between pages.
    request.page_size = 3;
    assert_eq!(sequences(&list(&request).unwrap().invoices), [3, 4, 5]);
    request.statuses.push(InvoiceStatus::INVOICE_STATUS_PAID.into());
    assert_status(list(&request), RpcStatusCode::INVALID_ARGUMENT, "page_token");
    request.page_token = "junk".to_owned();
    assert_status(list(&request), RpcStatusCode::INVALID_ARGUMENT, "page_token");
}

#[test]
fn malformed_fields_are_named() {
    let server = TestServer::start(Config::default());
    let request = ListInvoicesRequest { page_size: -1, ..ListInvoicesRequest::default() };
    let call = server.client().list_invoices(&request, CallOption::default());
    assert_status(call, RpcStatusCode::INVALID_ARGUMENT, "page_size: -1");
    let statuses = vec![protobuf::EnumOrUnknown::from_i32(9)];
    let request = ListInvoicesRequest { statuses, ..ListInvoicesRequest::default() };
    let call = server.client().list_invoices(&request, CallOption::default());
    assert_status(call, RpcStatusCode::INVALID_ARGUMENT, "statuses[0]: 9");
}
