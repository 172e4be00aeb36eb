//! `check` names what is wrong with the books.

use billstream::proto::report::EventKind::*;

use crate::common::invoice;
use crate::{event_of, Books};

#[test]
fn whatever_contradicts_is_named() {
    let cases = [
        (
            "UPDATE invoices SET status = 2 WHERE invoice_id = 'open'",
            "invoice \"open\" is PARTIALLY_PAID, with 0 paid of 100",
        ),
        (
            "UPDATE invoices SET status = 5 WHERE invoice_id = 'paid'",
            "invoice \"paid\" is VOID, with 30 paid of 100",
        ),
        (
            "UPDATE invoices SET paid_cents = 31 WHERE invoice_id = 'paid'",
            "invoice \"paid\" has as paid 31, and the ledger makes it 30",
        ),
        (
            "UPDATE invoices SET paid_cents = 7, status = 2 WHERE invoice_id = 'open'",
            "invoice \"open\" has 7 paid, and no event",
        ),
        (
            "UPDATE invoices SET last_event_sequence = 2 WHERE invoice_id = 'open'",
            "invoice \"open\" has event 2 as its newest, which is none of its",
        ),
        (
            "UPDATE invoices SET last_event_sequence = 1 WHERE invoice_id = 'paid'",
            "invoice \"paid\" has as its newest event 1, and the ledger makes it 3",
        ),
        (
            "UPDATE reconcile_events SET previous_event_sequence = 2 WHERE event_id = 'e3'",
            "event \"e3\" of invoice \"paid\" has as the event before it 2, and the ledger makes it 1",
        ),
        (
            "UPDATE reconcile_events SET amount_cents = 11 WHERE event_id = 'e3'",
            "event \"e3\" of invoice \"paid\" has as outstanding after it 70, and the ledger makes it 71",
        ),
        (
            "UPDATE ledger SET last_event_sequence = 2",
            "the last_event_sequence of the ledger is below that of an event",
        ),
        (
            "UPDATE currency_totals SET void_cents = 1",
            "the totals of USD are not those of its invoices",
        ),
        (
            "UPDATE customer_totals SET credit_note_paid_cents = 1",
            "the USD totals of customer \"cust-1\" are not those of its invoices",
        ),
    ];
    let books = Books::new();
    books.create(&[invoice("open", 100), invoice("paid", 100), invoice("credit", -100)]);
    books.apply(&[
        event_of(EVENT_KIND_PAYMENT, "e1", "paid", 40),
        event_of(EVENT_KIND_REFUND, "e2", "credit", 10),
        event_of(EVENT_KIND_REFUND, "e3", "paid", 10),
    ]);
    assert_eq!(books.faults(), [""; 0]);
    for (statement, fault) in cases {
        let copy = books.config.db.with_file_name("copy.db");
        billstream::server::backup(&books.config.db, &copy).unwrap();
        assert_eq!(rusqlite::Connection::open(&copy).unwrap().execute(statement, []), Ok(1));
        let config = billstream::Config { db: copy.clone(), ..books.config.clone() };
        assert_eq!(billstream::server::check(&config).unwrap().faults, [fault], "{statement}");
        std::fs::remove_file(copy).unwrap();
    }
}

/// Books that contradict are worth a copy all the more.
#[test]
fn what_contradicts_can_be_copied_and_restored() {
    let books = Books::new();
    books.create(&[invoice("i", 100)]);
    books.sql.execute("UPDATE invoices SET paid_cents = 7, status = 2", []).unwrap();
    let fault = "invoice \"i\" has 7 paid, and no event";
    assert_eq!(books.faults(), [fault]);
    let copy = books.config.db.with_file_name("copy.db");
    billstream::server::backup(&books.config.db, &copy).unwrap();
    let db = books.config.db.with_file_name("restored.db");
    billstream::server::restore(&copy, &db, true).unwrap();
    let config = billstream::Config { db, ..books.config.clone() };
    assert_eq!(billstream::server::check(&config).unwrap().faults, [fault]);
}

/// Events of an invoice that the shell deleted stay, and are no fault.
#[test]
fn a_deleted_invoice_leaves_its_events() {
    let books = Books::new();
    books.create(&[invoice("i", 100)]);
    books.apply(&[event_of(EVENT_KIND_PAYMENT, "e", "i", 40)]);
    books.sql.execute("DELETE FROM invoices", []).unwrap();
    assert_eq!(books.faults(), [""; 0]);
}
