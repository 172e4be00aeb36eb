//! What is kept of the ledger beside its rows, whoever writes them: a sequence is given once, the set of an
//! export is that of its start, and totals do not drift unseen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, Invoice};
use billstream::server::check;
use billstream::Config;
use futures::executor::block_on;
use futures::StreamExt;
use grpcio::CallOption;

use crate::common::*;

fn export_after(client: &Stub, after_sequence: i64) -> Vec<Invoice> {
    let request = ExportRequest { after_sequence, ..Default::default() };
    let (invoices, error) =
        collect(client.export_invoices(&request, CallOption::default()).unwrap());
    assert!(error.is_none(), "{error:?}");
    invoices
}

/// A statement of the sqlite3 shell, and what it is told.
fn shell(server: &TestServer, statement: &str) -> Result<usize, String> {
    server.sql().execute(statement, []).map_err(|error| error.to_string())
}

const ROW: &str = "'cust-1', 1, 'USD', 1, 0, 0, 0, ''";
const COLUMNS: &str = "invoice_id, customer_id, total_amount_cents, currency, status, paid_cents,
    issued_at, issued_at_nanos, memo";

#[test]
fn a_sequence_is_given_once() {
    let mut server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, ["a", "b", "c"].map(|id| invoice(id, 1))).unwrap();
    shell(&server, "DELETE FROM invoices WHERE sequence > 1").unwrap();
    assert_eq!(summary(&client).last_sequence, 3);
    let created = upload(&client, [invoice("d", 1), invoice("e", 1)]).unwrap();
    assert_eq!((created.first_sequence, created.last_sequence), (4, 5));
    // Whoever followed to 3 misses nothing.
    assert_eq!(sequences(&export_after(&client, 3)), [4, 5]);

    shell(&server, "DELETE FROM invoices").unwrap();
    assert_eq!((summary(&client).last_sequence, summary(&client).totals.len()), (5, 0));
    server.stop();
    server.server = Some(billstream::Server::start(server.config.clone()).unwrap());
    let created = upload(&server.client(), [invoice("f", 1)]).unwrap();
    assert_eq!(created.first_sequence, 6);
}

#[test]
fn the_shell_gives_no_sequence_again_either() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, ["a", "b"].map(|id| invoice(id, 1))).unwrap();
    shell(&server, &format!("INSERT INTO invoices ({COLUMNS}) VALUES ('c', {ROW})")).unwrap();
    shell(&server, &format!("INSERT INTO invoices VALUES (10, 'd', {ROW}, 0)")).unwrap();
    assert_eq!(upload(&client, [invoice("e", 1)]).unwrap().first_sequence, 11);
    shell(&server, "DELETE FROM invoices WHERE sequence >= 10").unwrap();
    for row in [
        format!("INSERT INTO invoices ({COLUMNS}) VALUES ('f', {ROW})"),
        format!("INSERT INTO invoices VALUES (11, 'f', {ROW}, 0)"),
        format!("INSERT INTO invoices VALUES (5, 'f', {ROW}, 0)"),
    ] {
        let refused = shell(&server, &row).unwrap_err();
        assert!(refused.contains("a sequence is given once"), "{refused}");
    }
    let next = "(SELECT last_sequence + 1 FROM ledger)";
    shell(&server, &format!("INSERT INTO invoices VALUES ({next}, 'f', {ROW}, 0)")).unwrap();
    assert_eq!(sequences(&export_after(&client, 0)), [1, 2, 3, 12]);
    assert_eq!(summary(&client).last_sequence, 12);
    assert!(check(&server.config).unwrap().faults.is_empty());
}

/// It waits for its first turn behind others, and what is created meanwhile is not in it.
#[test]
fn the_set_of_an_export_is_that_of_its_start() {
    let config = Config { export_workers: 1, ..Config::default() };
    let server = TestServer::with_copy(&database(10_000), config);
    let client = server.client();
    let is_over = Arc::new(AtomicBool::new(false));
    let other = |_| {
        let (client, is_over) = (server.client(), Arc::clone(&is_over));
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let request = ExportRequest::new();
                let all = client.export_invoice_batches(&request, CallOption::default());
                block_on(all.unwrap().count());
            }
        })
    };
    let others: Vec<_> = (0..8).map(other).collect();
    for round in 0..50 {
        let known = summary(&client).last_sequence;
        let request = ExportRequest { after_sequence: known - 1, ..Default::default() };
        let export = client.export_invoices(&request, CallOption::default()).unwrap();
        // A call behind it on its connection is answered after it was taken.
        summary(&client);
        upload(&client, [invoice(&format!("later-{round}"), 1)]).unwrap();
        assert_eq!(sequences(&collect(export).0), [known], "round {round}");
    }
    is_over.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().unwrap());
}

/// They publish nothing: each call looks.
#[test]
fn rows_of_the_shell_are_in_the_exports_that_start_later() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    for i in 1..=20 {
        shell(&server, &format!("INSERT INTO invoices ({COLUMNS}) VALUES ('i{i}', {ROW})"))
            .unwrap();
        assert_eq!(sequences(&export_after(&client, i - 1)), [i]);
        assert_eq!(summary(&client).last_sequence, i);
    }
}

/// SQLite runs no trigger for the rows that REPLACE deletes.
#[test]
fn the_shell_cannot_replace_an_invoice() {
    let server = TestServer::start(Config::default());
    let client = server.client();
    upload(&client, ["a", "b"].map(|id| invoice(id, 100))).unwrap();
    let before = summary(&client);
    let next = "(SELECT last_sequence + 1 FROM ledger)";
    for statement in [
        format!("INSERT OR REPLACE INTO invoices ({COLUMNS}) VALUES ('a', {ROW})"),
        format!("INSERT OR REPLACE INTO invoices VALUES (1, 'a', {ROW}, 0)"),
        format!("INSERT OR REPLACE INTO invoices VALUES (2, 'c', {ROW}, 0)"),
        format!("REPLACE INTO invoices VALUES ({next}, 'b', {ROW}, 0)"),
        "UPDATE OR REPLACE invoices SET invoice_id = 'b' WHERE sequence = 1".to_owned(),
        "UPDATE OR REPLACE invoices SET sequence = 2 WHERE sequence = 1".to_owned(),
        "UPDATE OR REPLACE invoices SET rowid = 2 WHERE sequence = 1".to_owned(),
        "UPDATE invoices SET _rowid_ = 7 WHERE sequence = 1".to_owned(),
    ] {
        let refused = shell(&server, &statement);
        assert!(refused.as_ref().is_err_and(|e| e.contains("invoice")), "{statement}: {refused:?}");
        assert_eq!(summary(&client), before, "{statement}");
        assert_eq!(check(&server.config).unwrap().faults, [""; 0], "{statement}");
    }
    assert_eq!(sequences(&export_after(&client, 0)), [1, 2]);
}

#[test]
fn whatever_has_drifted_is_found() {
    let server = TestServer::start(Config::default());
    upload(&server.client(), [invoice("a", 100)]).unwrap();
    let of_customer =
        |id: &str| format!("the USD totals of customer \"{id}\" are not those of its invoices");
    let of_currency = |code: &str| format!("the totals of {code} are not those of its invoices");
    let drifts = [
        (
            "INSERT INTO customer_totals VALUES ('gone', 'USD', 1, 5, 0, 0, 0, 0, 0, 0)",
            of_customer("gone"),
        ),
        ("UPDATE customer_totals SET paid_cents = 1", of_customer("cust-1")),
        ("DELETE FROM customer_totals", of_customer("cust-1")),
        ("INSERT INTO currency_totals VALUES ('EUR', 1, 5, 0, 0, 0, 0, 0, 0)", of_currency("EUR")),
        ("UPDATE currency_totals SET invoice_count = 2", of_currency("USD")),
        ("DELETE FROM currency_totals", of_currency("USD")),
        (
            "UPDATE ledger SET last_sequence = 0",
            "the last_sequence of the ledger is below that of an invoice".to_owned(),
        ),
        (
            "DELETE FROM ledger",
            "the last_sequence of the ledger is below that of an invoice".to_owned(),
        ),
    ];
    for (statement, fault) in drifts {
        let copy = server.dir.path().join("copy.db");
        billstream::server::backup(&server.config.db, &copy).unwrap();
        rusqlite::Connection::open(&copy).unwrap().execute(statement, []).unwrap();
        let config = Config { db: copy.clone(), ..server.config.clone() };
        assert_eq!(check(&config).unwrap().faults, [fault], "{statement}");
        std::fs::remove_file(copy).unwrap();
    }
}
