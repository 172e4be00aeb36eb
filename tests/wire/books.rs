//! The books come out right whatever was sent, how often, and in what order.

use std::path::Path;

use billstream::client::Stub;
use billstream::proto::report::{
    BulkResult, CreateInvoiceRequest, Invoice, ListInvoicesRequest, ReconcileAck, ReconcileEvent,
    ReconcileOutcome, Summary,
};
use billstream::server::check;
use billstream::Config;
use grpcio::{CallOption, RpcStatusCode};
use proptest::prelude::*;
use ReconcileOutcome::*;

use crate::common::*;
use crate::reconcile::reconcile;

/// The lines of a file of `tests/cases`, by the names of their columns.
fn case(name: &str) -> Vec<std::collections::HashMap<String, String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let header: Vec<String> = lines.next().unwrap().collect();
    lines.map(|line| header.iter().cloned().zip(line).collect()).collect()
}

fn invoices_of(name: &str) -> Vec<CreateInvoiceRequest> {
    case(name)
        .into_iter()
        .map(|row| CreateInvoiceRequest {
            invoice_id: row["invoice_id"].clone(),
            customer_id: row["customer_id"].clone(),
            total_amount_cents: row["total_amount_cents"].parse().unwrap(),
            currency: row["currency"].clone(),
            memo: row["memo"].clone(),
            issued_at: time(1_700_000_000),
            ..Default::default()
        })
        .collect()
}

fn payments_of(name: &str) -> Vec<ReconcileEvent> {
    case(name)
        .into_iter()
        .map(|row| ReconcileEvent {
            event_id: row["event_id"].clone(),
            invoice_id: row["invoice_id"].clone(),
            amount_cents: row["amount_cents"].parse().unwrap(),
            currency: row["currency"].clone(),
            reference: row["reference"].clone(),
            received_at: time(1_700_000_000),
            ..Default::default()
        })
        .collect()
}

fn outcomes(acks: &[ReconcileAck]) -> Vec<(ReconcileOutcome, bool)> {
    acks.iter().map(|ack| (ack.outcome.enum_value().unwrap(), ack.duplicate)).collect()
}

#[test]
fn a_payment_before_its_invoice_is_applied_after_it() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let pay = || outcomes(&reconcile(&client, &payments_of("pay-before-invoice.csv")));
    assert_eq!(pay(), [(RECONCILE_OUTCOME_UNKNOWN_INVOICE, false)]);
    upload(&client, invoices_of("late-invoice.csv")).unwrap();
    assert_eq!(pay(), [(RECONCILE_OUTCOME_SETTLED, false)]);
    assert_eq!(pay(), [(RECONCILE_OUTCOME_SETTLED, true)]);
    assert_eq!(summary(&client).totals[0].paid_cents, 100);
}

#[test]
fn a_corrected_payment_is_applied_and_another_one_is_not() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, invoices_of("late-invoice.csv")).unwrap();
    let pay = |name: &str| reconcile(&client, &payments_of(name));
    let acks = pay("pay-lowercase-currency.csv");
    assert_eq!(outcomes(&acks), [(RECONCILE_OUTCOME_REJECTED, false)]);
    assert!(acks[0].message.contains("currency"), "{acks:?}");
    let acks = pay("pay-fixed-currency.csv");
    assert_eq!(outcomes(&acks), [(RECONCILE_OUTCOME_PARTIAL, false)]);
    let acks = pay("pay-same-id-other-amount.csv");
    let expected = [(RECONCILE_OUTCOME_PARTIAL, false), (RECONCILE_OUTCOME_EVENT_ID_REUSED, false)];
    assert_eq!(outcomes(&acks), expected);
    assert_eq!(summary(&client).totals[0].paid_cents, 50);
}

/// Money back is a refund, and no payment of less than nothing, which a slip of a sign would be.
#[test]
fn a_payment_with_a_sign_is_refused() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, invoices_of("late-invoice.csv")).unwrap();
    let acks = reconcile(&client, &payments_of("pay-refund.csv"));
    assert_eq!(outcomes(&acks), [(RECONCILE_OUTCOME_REJECTED, false)]);
    assert_eq!(acks[0].message, "amount_cents: -10 is less than 1");
    assert_eq!(summary(&client).totals[0].paid_cents, 0);
}

fn batch(client: &Stub, name: &str, batch_id: &str) -> grpcio::Result<BulkResult> {
    let rows = invoices_of(name);
    let last = commit(batch_id, rows.len() as i64);
    upload(client, rows.into_iter().chain([last]))
}

#[test]
fn a_batch_of_other_content_and_an_amount_without_bound_create_nothing() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    batch(&client, "batch-a.csv", "may").unwrap();
    let other = batch(&client, "batch-b.csv", "may");
    assert_status(other, RpcStatusCode::ABORTED, "was used for other content");
    assert!(batch(&client, "batch-a.csv", "may").unwrap().already_applied);
    let large = batch(&client, "amount-i64-max.csv", "june");
    assert_status(large, RpcStatusCode::INVALID_ARGUMENT, "total_amount_cents");
    batch(&client, "batch-b.csv", "june").unwrap();
    assert_eq!(summary(&client).totals[0].total_cents, 100 + 999);
}

/// What is sent: the part of the invoices of this number, or all payments.
#[derive(Clone, Debug)]
enum Step {
    Invoices(usize),
    Payments,
}

const PARTS: usize = 3;

/// Invoices in parts, their payments, and the payments five times among the parts, the last time at the
/// end.
fn histories() -> impl Strategy<Value = (Vec<i64>, Vec<(usize, i64)>, Vec<Step>)> {
    let amounts = prop::collection::vec(0..200i64, 1..12);
    let payments = prop::collection::vec((any::<prop::sample::Index>(), 1..150i64), 1..25);
    let mut steps: Vec<Step> = (0..PARTS).map(Step::Invoices).collect();
    steps.extend([Step::Payments, Step::Payments, Step::Payments, Step::Payments]);
    let steps = Just(steps).prop_shuffle();
    (amounts, payments, steps).prop_map(|(amounts, payments, mut steps)| {
        steps.push(Step::Payments);
        let of =
            |(invoice, cents): (prop::sample::Index, i64)| (invoice.index(amounts.len()), cents);
        let payments = payments.into_iter().map(of).collect();
        (amounts, payments, steps)
    })
}

/// The summary, and every invoice without what its place in the history gives it.
fn books(client: &Stub) -> (Summary, Vec<Invoice>) {
    let mut totals = summary(client);
    totals.last_sequence = 0;
    let request = ListInvoicesRequest { page_size: 1000, ..Default::default() };
    let page = client.list_invoices(&request, CallOption::default()).unwrap();
    let mut invoices = page.invoices;
    invoices.iter_mut().for_each(|invoice| invoice.sequence = 0);
    invoices.sort_by(|a, b| a.invoice_id.cmp(&b.invoice_id));
    (totals, invoices)
}

/// The books after `steps`, each event of the payments under an id of its own.
fn after(amounts: &[i64], payments: &[(usize, i64)], steps: &[Step]) -> (Summary, Vec<Invoice>) {
    let server = TestServer::start(Config::default());
    let client = server.client();
    let mut payments: Vec<_> = payments
        .iter()
        .enumerate()
        .map(|(i, (to, cents))| event(&format!("e{i}"), &format!("i{to}"), *cents))
        .collect();
    for step in steps {
        match step {
            Step::Invoices(part) => {
                let of_part = amounts.iter().enumerate().filter(|(i, _)| i % PARTS == *part);
                upload(&client, of_part.map(|(i, cents)| invoice(&format!("i{i}"), *cents)))
                    .unwrap();
            }
            Step::Payments => {
                reconcile(&client, &payments);
                // Another order the next time.
                payments.rotate_left(1);
            }
        }
    }
    assert!(check(&server.config).unwrap().faults.is_empty());
    books(&client)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// A payment file that is sent five times in any mixture of orders with its invoices.
    #[test]
    fn sent_again_and_in_any_order_the_books_are_those_of_once_in_order(
        (amounts, payments, steps) in histories(),
    ) {
        let mut in_order: Vec<Step> = (0..PARTS).map(Step::Invoices).collect();
        in_order.push(Step::Payments);
        let expected = after(&amounts, &payments, &in_order);
        prop_assert_eq!(after(&amounts, &payments, &steps), expected);
    }
}
