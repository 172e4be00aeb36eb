//! The table at InvoiceStatus in the proto cell by cell, and every refusal.

use billstream::model::MAX_AMOUNT_CENTS;
use billstream::proto::report::{EventKind, InvoiceStatus, ReconcileEvent, ReconcileOutcome};
use protobuf::EnumOrUnknown;
use EventKind::*;
use InvoiceStatus::*;
use ReconcileOutcome::*;

use crate::common::invoice;
use crate::{event_of, Books};

const PAY: EventKind = EVENT_KIND_PAYMENT;
const BACK: EventKind = EVENT_KIND_REFUND;
const VOID: EventKind = EVENT_KIND_VOID;

/// An amount, events of it with the outcome of each, and what the last one leaves: the status, what is paid,
/// and what is outstanding.
type Cell = (i64, &'static [(EventKind, i64, ReconcileOutcome)], InvoiceStatus, i64, i64);

const PARTIAL: ReconcileOutcome = RECONCILE_OUTCOME_PARTIAL;
const SETTLED: ReconcileOutcome = RECONCILE_OUTCOME_SETTLED;
const OVER: ReconcileOutcome = RECONCILE_OUTCOME_OVERPAID;
const EXCEEDS: ReconcileOutcome = RECONCILE_OUTCOME_EXCEEDS_PAID;
const VOIDED: ReconcileOutcome = RECONCILE_OUTCOME_VOIDED;
const PAID_IN: ReconcileOutcome = RECONCILE_OUTCOME_HAS_PAYMENTS;
const GONE: ReconcileOutcome = RECONCILE_OUTCOME_INVOICE_VOID;

#[rustfmt::skip]
const CELLS: &[Cell] = &[
    // The column of invoices.
    (100, &[], INVOICE_STATUS_OPEN, 0, 100),
    (100, &[(PAY, 99, PARTIAL), (BACK, 99, PARTIAL)], INVOICE_STATUS_OPEN, 0, 100),
    (100, &[(PAY, 1, PARTIAL)], INVOICE_STATUS_PARTIALLY_PAID, 1, 99),
    (100, &[(PAY, 100, SETTLED), (BACK, 1, PARTIAL)], INVOICE_STATUS_PARTIALLY_PAID, 99, 1),
    (100, &[(PAY, 100, SETTLED)], INVOICE_STATUS_PAID, 100, 0),
    (100, &[(PAY, 101, OVER), (BACK, 1, SETTLED)], INVOICE_STATUS_PAID, 100, 0),
    (100, &[(PAY, 101, OVER)], INVOICE_STATUS_OVERPAID, 101, -1),
    (100, &[(BACK, 1, EXCEEDS)], INVOICE_STATUS_OPEN, 0, 100),
    (100, &[(PAY, 50, PARTIAL), (BACK, 51, EXCEEDS)], INVOICE_STATUS_PARTIALLY_PAID, 50, 50),
    (100, &[(VOID, 0, VOIDED)], INVOICE_STATUS_VOID, 0, 0),
    (100, &[(VOID, 100, VOIDED), (VOID, 100, GONE), (PAY, 1, GONE), (BACK, 1, GONE)],
     INVOICE_STATUS_VOID, 0, 0),
    (100, &[(PAY, 1, PARTIAL), (VOID, 0, PAID_IN)], INVOICE_STATUS_PARTIALLY_PAID, 1, 99),
    (100, &[(PAY, 1, PARTIAL), (BACK, 1, PARTIAL), (VOID, 0, VOIDED)], INVOICE_STATUS_VOID, 0, 0),
    (100, &[(VOID, 99, RECONCILE_OUTCOME_REJECTED)], INVOICE_STATUS_OPEN, 0, 100),
    // The column of zero.
    (0, &[], INVOICE_STATUS_PAID, 0, 0),
    (0, &[(PAY, 1, OVER)], INVOICE_STATUS_OVERPAID, 1, -1),
    (0, &[(PAY, 1, OVER), (BACK, 1, SETTLED)], INVOICE_STATUS_PAID, 0, 0),
    (0, &[(BACK, 1, EXCEEDS)], INVOICE_STATUS_PAID, 0, 0),
    (0, &[(VOID, 0, VOIDED)], INVOICE_STATUS_VOID, 0, 0),
    (0, &[(VOID, 1, RECONCILE_OUTCOME_REJECTED)], INVOICE_STATUS_PAID, 0, 0),
    // The column of credit notes.
    (-100, &[], INVOICE_STATUS_OPEN, 0, -100),
    (-100, &[(BACK, 99, PARTIAL), (PAY, 99, PARTIAL)], INVOICE_STATUS_OPEN, 0, -100),
    (-100, &[(BACK, 1, PARTIAL)], INVOICE_STATUS_PARTIALLY_PAID, -1, -99),
    (-100, &[(BACK, 100, SETTLED)], INVOICE_STATUS_PAID, -100, 0),
    (-100, &[(BACK, 101, OVER)], INVOICE_STATUS_OVERPAID, -101, 1),
    (-100, &[(BACK, 101, OVER), (PAY, 1, SETTLED)], INVOICE_STATUS_PAID, -100, 0),
    (-100, &[(PAY, 1, EXCEEDS)], INVOICE_STATUS_OPEN, 0, -100),
    (-100, &[(BACK, 50, PARTIAL), (PAY, 51, EXCEEDS)], INVOICE_STATUS_PARTIALLY_PAID, -50, -50),
    (-100, &[(VOID, 100, VOIDED)], INVOICE_STATUS_VOID, 0, 0),
    (-100, &[(BACK, 1, PARTIAL), (VOID, 100, PAID_IN)], INVOICE_STATUS_PARTIALLY_PAID, -1, -99),
    // The bounds.
    (MAX_AMOUNT_CENTS, &[(PAY, MAX_AMOUNT_CENTS, SETTLED)], INVOICE_STATUS_PAID, MAX_AMOUNT_CENTS, 0),
    (-MAX_AMOUNT_CENTS, &[(BACK, MAX_AMOUNT_CENTS, SETTLED)], INVOICE_STATUS_PAID, -MAX_AMOUNT_CENTS, 0),
];

#[test]
fn every_cell_is_as_the_table_says() {
    let books = Books::new();
    let id = |i: usize| format!("i{i}");
    let invoices: Vec<_> =
        CELLS.iter().enumerate().map(|(i, cell)| invoice(&id(i), cell.0)).collect();
    books.create(&invoices);
    for (i, (total, events, status, paid, outstanding)) in CELLS.iter().enumerate() {
        let cell = format!("{total} {events:?}");
        let of = |(n, (kind, cents, _)): (usize, &(EventKind, i64, _))| {
            event_of(*kind, &format!("e{i}-{n}"), &id(i), *cents)
        };
        let acks = books.apply(&events.iter().enumerate().map(of).collect::<Vec<_>>());
        for (ack, (_, _, outcome)) in acks.iter().zip(*events) {
            assert_eq!(ack.outcome.enum_value(), Ok(*outcome), "{cell}: {ack:?}");
        }
        if let Some(ack) = acks.last() {
            assert_eq!(ack.invoice_status.enum_value(), Ok(*status), "{cell}");
            assert_eq!(ack.outstanding_cents, *outstanding, "{cell}");
        }
        let row = "SELECT status, paid_cents FROM invoices WHERE invoice_id = ?1";
        let row = books.sql.query_row(row, [id(i)], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(row, Ok((*status as i32, *paid)), "{cell}");
    }
    let total = &books.summary().totals[0];
    let sum: i64 = CELLS.iter().map(|(.., outstanding)| outstanding).sum();
    assert_eq!(total.outstanding_cents, sum);
    assert_eq!(books.faults(), [""; 0]);
}

/// What each refusal says, and that it leaves the invoice as it is.
#[test]
fn every_refusal_names_what_is_wrong() {
    let books = Books::new();
    books.create(&[invoice("i", 100), invoice("c", -100), invoice("void", 100)]);
    books.apply(&[
        event_of(PAY, "paid", "i", 10),
        event_of(BACK, "refunded", "c", 10),
        event_of(VOID, "withdrawn", "void", 0),
    ]);
    let mut unknown_kind = event_of(PAY, "e", "i", 1);
    unknown_kind.kind = EnumOrUnknown::from_i32(4);
    let mut euro = event_of(BACK, "e", "i", 1);
    euro.currency = "EUR".to_owned();
    let cases: &[(ReconcileEvent, ReconcileOutcome, &str)] = &[
        (unknown_kind, RECONCILE_OUTCOME_REJECTED, "kind: 4 is no event kind"),
        (event_of(PAY, "e", "i", 0), RECONCILE_OUTCOME_REJECTED, "amount_cents: 0 is less than 1"),
        (event_of(BACK, "e", "i", 0), RECONCILE_OUTCOME_REJECTED, "amount_cents: 0 is less than 1"),
        (
            event_of(BACK, "e", "i", -1),
            RECONCILE_OUTCOME_REJECTED,
            "amount_cents: -1 is less than 1",
        ),
        (
            event_of(VOID, "e", "i", -1),
            RECONCILE_OUTCOME_REJECTED,
            "amount_cents: -1 is less than 0",
        ),
        (
            event_of(VOID, "e", "i", 99),
            RECONCILE_OUTCOME_REJECTED,
            "amount_cents: 99 is not the invoice's, 100",
        ),
        (
            event_of(VOID, "e", "c", 10),
            RECONCILE_OUTCOME_REJECTED,
            "amount_cents: 10 is not the invoice's, 100",
        ),
        (event_of(VOID, "e", "i", 0), PAID_IN, "what is paid of it, 10, is to be given back first"),
        (event_of(BACK, "e", "i", 11), EXCEEDS, "more than the 10 that are paid"),
        (
            event_of(PAY, "e", "c", 11),
            EXCEEDS,
            "more than the 10 that are refunded of the credit note",
        ),
        (event_of(VOID, "e", "void", 0), GONE, "the invoice is void"),
        (euro, RECONCILE_OUTCOME_CURRENCY_MISMATCH, "the invoice is in USD"),
        (
            event_of(BACK, "e", "no", 1),
            RECONCILE_OUTCOME_UNKNOWN_INVOICE,
            "there is no invoice \"no\"",
        ),
        (
            event_of(BACK, "paid", "i", 10),
            RECONCILE_OUTCOME_EVENT_ID_REUSED,
            "event_id was used for another payment: 10 USD of \"i\"",
        ),
        (
            event_of(VOID, "refunded", "c", 10),
            RECONCILE_OUTCOME_EVENT_ID_REUSED,
            "event_id was used for another refund: 10 USD of \"c\"",
        ),
        (
            event_of(VOID, "withdrawn", "void", 100),
            RECONCILE_OUTCOME_EVENT_ID_REUSED,
            "event_id was used for another void: 0 USD of \"void\"",
        ),
    ];
    let before = books.summary();
    for (event, outcome, message) in cases {
        let ack = &books.apply(std::slice::from_ref(event))[0];
        assert_eq!((ack.outcome.enum_value(), &ack.message[..]), (Ok(*outcome), *message));
        assert!(!ack.duplicate, "{ack:?}");
    }
    assert_eq!(books.summary(), before);
    // One that was refused is judged anew, under the id that it had.
    assert_eq!(books.apply(&[event_of(BACK, "e", "i", 10)])[0].outcome.value(), PARTIAL as i32);
}

/// A client that does not know kinds sends payments, and one that does knows them again.
#[test]
fn no_kind_is_a_payment() {
    let books = Books::new();
    books.create(&[invoice("i", 100)]);
    let of = |kind| books.apply(&[event_of(kind, "e", "i", 100)])[0].clone();
    let first = of(EVENT_KIND_UNSPECIFIED);
    assert_eq!((first.outcome.value(), first.duplicate), (SETTLED as i32, false));
    let again = of(PAY);
    assert_eq!((again.outcome.value(), again.duplicate), (SETTLED as i32, true));
}
