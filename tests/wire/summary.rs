//! GetSummary.

use billstream::proto::report::{CurrencyTotal, SummaryRequest};
use billstream::Config;
use grpcio::{CallOption, RpcStatusCode};

use crate::common::*;

fn total(currency: &str, invoice_count: i64, total_cents: i64) -> CurrencyTotal {
    CurrencyTotal {
        currency: currency.to_owned(),
        invoice_count,
        total_cents,
        outstanding_cents: total_cents,
        ..CurrencyTotal::default()
    }
}

#[test]
fn an_empty_database_has_an_empty_summary() {
    let server = TestServer::start(Config::default());
    assert_eq!(summary(&server.client()), Default::default());
}

#[test]
fn currencies_are_never_added_together() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let mut euro = invoice("b", 7);
    euro.currency = "EUR".to_owned();
    upload(&client, [invoice("a", 100), euro, invoice("c", 0)]).unwrap();
    let summary = summary(&client);
    assert_eq!(summary.invoice_count, 3);
    assert_eq!(summary.last_sequence, 3);
    assert_eq!(summary.totals, [total("EUR", 1, 7), total("USD", 2, 100)]);
}

#[test]
fn a_customer_and_half_open_dates_narrow_it() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let mut invoices: Vec<_> = (0..4).map(|i| invoice(&i.to_string(), 1 << i)).collect();
    invoices.iter_mut().enumerate().for_each(|(i, it)| it.issued_at = time(i as i64));
    invoices[3].customer_id = "cust-2".to_owned();
    upload(&client, invoices).unwrap();
    let cents = |customer: &str, from: Option<i64>, until: Option<i64>| {
        let request = SummaryRequest {
            customer_id: customer.to_owned(),
            issued_from: from.map(time).unwrap_or_default(),
            issued_until: until.map(time).unwrap_or_default(),
            ..SummaryRequest::default()
        };
        let summary = client.get_summary(&request, CallOption::default()).unwrap();
        assert_eq!(summary.last_sequence, 4, "of the whole database");
        summary.totals.iter().map(|total| total.total_cents).sum::<i64>()
    };
    assert_eq!(cents("", Some(1), Some(3)), 2 + 4);
    assert_eq!(cents("", None, Some(1)), 1);
    assert_eq!(cents("", Some(3), None), 8);
    assert_eq!(cents("cust-2", None, None), 8);
    assert_eq!(cents("cust-1", Some(2), None), 4);
    assert_eq!(cents("nobody", None, None), 0);
}

#[test]
fn malformed_fields_are_named() {
    let server = TestServer::start(Config::default());
    let mut request = SummaryRequest {
        customer_id: "x".repeat(129),
        issued_from: time(5),
        issued_until: time(4),
        ..SummaryRequest::default()
    };
    let call = |request| server.client().get_summary(&request, CallOption::default());
    let status =
        assert_status(call(request.clone()), RpcStatusCode::INVALID_ARGUMENT, "issued_from");
    assert!(status.message().contains("customer_id: has 129 bytes"), "{status:?}");
    request.customer_id.clear();
    request.issued_until = time(i64::MAX);
    assert_status(call(request), RpcStatusCode::INVALID_ARGUMENT, "issued_until");
}

#[test]
fn a_query_past_its_limit_is_ended() {
    let config = Config { unary_timeout_ms: 0, ..Config::default() };
    let server = TestServer::start(config);
    // With dates, because totals alone are not queried but read.
    let request = SummaryRequest { issued_from: time(0), ..SummaryRequest::default() };
    let call = server.client().get_summary(&request, CallOption::default());
    assert_status(call, RpcStatusCode::DEADLINE_EXCEEDED, "unary_timeout_ms");
    eventually("the connection is back", || server.get().connections_in_use() == 0);
}
