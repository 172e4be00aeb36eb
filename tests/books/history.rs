//! Histories of invoices and events, repeated and in any order: at every step rows, totals, events and a model agree.

use std::collections::BTreeMap;

use billstream::proto::report::{
    CreateInvoiceRequest, CurrencyTotal, ReconcileAck, ReconcileEvent, SummaryRequest,
};
use proptest::prelude::*;
use protobuf::EnumOrUnknown;

use crate::common::{event, invoice, time};
use crate::model::{Ack, Invoice, Model};
use crate::Books;

/// Few, so that many events meet on one invoice.
const INVOICES: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    /// The invoices from this one on, so many.
    Create(usize, usize),
    /// The events of these numbers, in this order.
    Apply(Vec<usize>),
}

/// On both sides of zero, and round, so that sums meet.
fn invoices() -> impl Strategy<Value = Vec<CreateInvoiceRequest>> {
    let amount =
        prop_oneof![Just(0i64), Just(100), Just(200), Just(-100), Just(-200), -250..250i64];
    let one = (amount, "c[12]", "(USD|EUR)", 0..3i64);
    prop::collection::vec(one, INVOICES).prop_map(|all| {
        let one = |(i, (cents, customer_id, currency, day)): (usize, (_, String, String, i64))| {
            let issued_at = time(1_700_000_000 + day * 86_400);
            let new = invoice(&format!("i{i}"), cents);
            CreateInvoiceRequest { customer_id, currency, issued_at, ..new }
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn events() -> impl Strategy<Value = Vec<ReconcileEvent>> {
    let amount = prop_oneof![8 => Just(100i64), 4 => Just(50), 2 => Just(200), 2 => Just(0), 1 => -100..300i64];
    // Some are of no kind there is.
    let kind = prop_oneof![2 => Just(0), 3 => Just(1), 4 => Just(2), 3 => Just(3), 1 => Just(4)];
    let currency = prop_oneof![Just("USD"), Just("EUR")];
    // One is of an invoice that never comes, and some are of an id that another has.
    let one = (0..30usize, 0..=INVOICES, amount, kind, currency);
    prop::collection::vec(one, 40).prop_map(|all| {
        let one =
            |(id, to, cents, kind, currency): (usize, usize, i64, i32, &str)| ReconcileEvent {
                kind: EnumOrUnknown::from_i32(kind),
                currency: currency.to_owned(),
                ..event(&format!("e{id}"), &format!("i{to}"), cents)
            };
        all.into_iter().map(one).collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let create = (0..INVOICES, 1..=INVOICES).prop_map(|(from, count)| Step::Create(from, count));
    let apply = prop::collection::vec(0..40usize, 1..30).prop_map(Step::Apply);
    let later = prop::collection::vec(prop_oneof![1 => create.clone(), 3 => apply], 4..9);
    (create, later).prop_map(|(first, later)| [vec![first], later].concat())
}

fn ack(ack: &ReconcileAck) -> Ack {
    Ack {
        outcome: ack.outcome.enum_value().unwrap(),
        status: ack.invoice_status.enum_value().unwrap(),
        outstanding: ack.outstanding_cents,
        duplicate: ack.duplicate,
    }
}

/// The totals of the invoices of the model that match.
fn totals(model: &Model, matches: impl Fn(&Invoice) -> bool) -> Vec<CurrencyTotal> {
    let mut totals: BTreeMap<&str, CurrencyTotal> = BTreeMap::new();
    for invoice in model.invoices.values().filter(|invoice| matches(invoice)) {
        let total = totals.entry(&invoice.currency).or_default();
        total.currency.clone_from(&invoice.currency);
        total.invoice_count += 1;
        total.total_cents += invoice.total;
        total.paid_cents += invoice.paid;
        total.outstanding_cents += invoice.outstanding();
        if invoice.total < 0 {
            total.credit_note_count += 1;
            total.credit_note_cents += invoice.total;
        }
        if invoice.is_void {
            total.void_count += 1;
            total.void_cents += invoice.total;
        }
    }
    totals.into_values().collect()
}

/// Every way to ask for totals gives those of the model: kept ones, and those of a range of dates.
fn assert_totals(books: &Books, model: &Model) {
    let ever = (time(0), time(2_000_000_000));
    for (customer_id, has_dates) in [("", false), ("", true), ("c1", false), ("c1", true)] {
        let mut request =
            SummaryRequest { customer_id: customer_id.to_owned(), ..Default::default() };
        if has_dates {
            (request.issued_from, request.issued_until) = ever.clone();
        }
        let matches = |i: &Invoice| customer_id.is_empty() || i.customer_id == customer_id;
        let expected = totals(model, matches);
        assert_eq!(books.client.summary(&request).unwrap().totals, expected, "{request:?}");
    }
}

/// The rows are those of the model.
fn assert_rows(books: &Books, model: &Model) {
    let text = "SELECT invoice_id, total_amount_cents, paid_cents, status FROM invoices ORDER BY 1";
    let mut rows = books.sql.prepare_cached(text).unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let rows: Vec<(String, i64, i64, i32)> = rows.unwrap().map(Result::unwrap).collect();
    let invoices = model.invoices.iter();
    let expected: Vec<_> =
        invoices.map(|(id, i)| (id.clone(), i.total, i.paid, i.status() as i32)).collect();
    assert_eq!(rows, expected);
}

/// The ledger is that of the model, numbered in the order of application, and makes what is paid of each invoice.
fn assert_ledger(books: &Books, model: &Model) {
    let text = "SELECT event_sequence, invoice_id,
                       CASE kind WHEN 1 THEN amount_cents WHEN 2 THEN -amount_cents ELSE 0 END
                FROM reconcile_events ORDER BY event_sequence";
    let mut rows = books.sql.prepare_cached(text).unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let rows: Vec<(i64, String, i64)> = rows.unwrap().map(Result::unwrap).collect();
    let numbered = model.ledger.iter().zip(1..);
    let expected: Vec<_> = numbered.map(|((id, cents), i)| (i, id.clone(), *cents)).collect();
    assert_eq!(rows, expected);
    for (id, invoice) in &model.invoices {
        let paid: i64 = rows.iter().filter(|(_, of, _)| of == id).map(|(_, _, cents)| cents).sum();
        assert_eq!(paid, invoice.paid, "{id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn at_every_step_the_books_balance(
        invoices in invoices(), events in events(), steps in steps(),
    ) {
        let (books, mut model) = (Books::new(), Model::default());
        for step in steps {
            match step {
                Step::Create(from, count) => {
                    let new = invoices.iter().skip(from).take(count);
                    let new: Vec<_> = new.filter(|invoice| model.create(invoice)).cloned().collect();
                    books.create(&new);
                }
                Step::Apply(numbers) => {
                    let events: Vec<_> = numbers.into_iter().map(|i| events[i].clone()).collect();
                    let expected: Vec<_> = events.iter().map(|event| model.apply(event)).collect();
                    let acks: Vec<_> = books.apply(&events).iter().map(ack).collect();
                    prop_assert_eq!(acks, expected);
                }
            }
            assert_rows(&books, &model);
            assert_totals(&books, &model);
            assert_ledger(&books, &model);
            prop_assert_eq!(books.faults(), Vec::<String>::new());
        }
    }
}

/// Every outcome there is comes in the histories, so that none is left out of the property.
#[test]
fn the_histories_have_every_outcome() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    for _ in 0..64 {
        let strategy = (invoices(), events(), steps());
        let (invoices, events, steps) = strategy.new_tree(&mut runner).unwrap().current();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Create(from, count) => {
                    invoices.iter().skip(from).take(count).for_each(|i| {
                        model.create(i);
                    });
                }
                Step::Apply(numbers) => numbers.into_iter().for_each(|i| {
                    *counts.entry(model.apply(&events[i]).outcome as i32).or_default() += 1;
                }),
            }
        }
    }
    let mut all = (1..=11).map(|outcome| counts.get(&outcome).copied().unwrap_or_default());
    assert!(all.all(|count| count >= 10), "{counts:?}");
}
