//! `reconcile`.

use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::Receiver;

use super::support::*;

/// A reconcile whose input is a pipe that stays open.
pub struct Reconcile {
    pub process: Process,
    pub stdin: Option<ChildStdin>,
    pub acks: Receiver<String>,
}

impl Reconcile {
    pub fn start(addr: &str) -> Reconcile {
        Reconcile::start_on(&["--addr", addr])
    }

    /// On what these flags name.
    pub fn start_on(flags: &[&str]) -> Reconcile {
        let mut command = billstream(&[&["reconcile", "-"], flags].concat());
        command.stdin(Stdio::piped());
        let mut process = Process::start(command);
        let stdin = process.child.stdin.take();
        let acks = process.lines();
        let mut reconcile = Reconcile { process, stdin, acks };
        assert_eq!(
            reconcile.ack(),
            "event_id,outcome,invoice_status,outstanding_cents,duplicate,message"
        );
        reconcile.send(EVENTS);
        reconcile
    }

    pub fn send(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn pay(&mut self, event: &str, invoice: &str, cents: i64) {
        self.send(&format!("{event},{invoice},{cents},USD,2023-01-01T00:00:00Z,\n"));
    }

    pub fn ack(&mut self) -> String {
        self.acks.recv_timeout(DEADLINE).expect("an acknowledgement")
    }

    pub fn end(mut self) -> (i32, String) {
        drop(self.stdin.take());
        let code = self.process.wait();
        (code, self.process.stderr())
    }
}

#[test]
fn acknowledgements_come_while_the_input_is_open() {
    let server = Server::with_three();
    let mut reconcile = Reconcile::start(&server.addr);
    for (event, invoice, cents, expected) in [
        ("e1", "a", 400, "e1,PARTIAL,PARTIALLY_PAID,600,false,"),
        ("e2", "a", 600, "e2,SETTLED,PAID,0,false,"),
        ("e1", "a", 400, "e1,PARTIAL,PARTIALLY_PAID,600,true,"),
        ("e3", "b", 2001, "e3,OVERPAID,OVERPAID,-1,false,"),
        ("e4", "z", 1, "e4,UNKNOWN_INVOICE,,0,false,"),
        ("e5", "c", 1, "e5,CURRENCY_MISMATCH,OPEN,3000,false,"),
        ("e6", "a", -1, "e6,REJECTED,"),
    ] {
        reconcile.pay(event, invoice, cents);
        let ack = reconcile.ack();
        assert!(ack.starts_with(expected), "{ack}, expected {expected}");
    }
    let (code, stderr) = reconcile.end();
    assert_eq!(code, 0, "{stderr}");
    let counts =
        "7 events: 2 PARTIAL, 1 SETTLED, 1 OVERPAID, 1 UNKNOWN_INVOICE, 1 CURRENCY_MISMATCH, \
                  1 REJECTED; 1 of them known before\n";
    assert_eq!(stderr, counts);
}

#[test]
fn a_bad_line_ends_a_reconcile_after_what_was_before_it() {
    let server = Server::with_three();
    let mut reconcile = Reconcile::start(&server.addr);
    reconcile.pay("e1", "a", 1000);
    reconcile.send("e2,a,ten,USD,2023-01-01T00:00:00Z,\ne3,b,1,USD,2023-01-01T00:00:00Z,\n");
    assert_eq!(reconcile.ack(), "e1,SETTLED,PAID,0,false,");
    let (code, stderr) = reconcile.end();
    assert_eq!(code, 2, "{stderr}");
    let message = "error: stdin:3: column amount_cents: \"ten\": expected a whole number of cents";
    assert!(stderr.contains(message), "{stderr}");
    let paid = server.run(&["list", "--format", "csv", "--columns", "paid_cents"]).ok();
    assert_eq!(paid, "paid_cents\n1000\n0\n0\n");
}

#[test]
fn ten_thousand_payments_are_acknowledged_in_order() {
    let server = Server::with_three();
    let events: String = (0..10_000).map(|i| event_row(i, "c")).collect();
    let file = server.file("events.csv", &format!("{EVENTS}{events}").replace("USD", "EUR"));
    let acks = server.run(&["reconcile", &file, "--format", "ndjson"]).ok();
    assert_eq!(acks.lines().count(), 10_000);
    for (i, ack) in acks.lines().enumerate() {
        assert!(ack.starts_with(&format!("{{\"event_id\":\"e{i}\",")), "{ack}");
    }
    assert!(acks.lines().nth(2999).unwrap().contains("\"SETTLED\""));
    assert!(server.summary().contains("\"paid_cents\":10000,\"outstanding_cents\":-7000"));
}

/// A kind in any case, in csv and in ndjson, and what each makes of the books.
#[test]
fn refunds_and_voids_are_of_a_column_and_totals_show_them() {
    let server = Server::with_three();
    let credit = "invoice_id,customer_id,total_amount_cents,currency,issued_at\n\
                  credit,anna,-500,USD,2020-01-01T00:00:00Z\n";
    run_with_stdin(&at(&["import", "-"], &server.addr), credit).ok();
    let at_once = "2023-01-01T00:00:00Z";
    let header = "event_id,invoice_id,kind,amount_cents,currency,received_at\n";
    let csv = format!(
        "{header}e1,a,,1000,USD,{at_once}\ne2,a,refund,400,USD,{at_once}\n\
         e3,credit,Refund,500,USD,{at_once}\ne4,b,VOID,,USD,{at_once}\ne5,a,void,0,USD,{at_once}\n\
         e6,a,refund,601,USD,{at_once}\ne7,a,refund,-1,USD,{at_once}\n"
    );
    let file = server.file("events.csv", &csv);
    let reconciled = server.run(&["reconcile", &file]);
    assert!(
        reconciled.stderr.ends_with(
            "7 events: 1 PARTIAL, 2 SETTLED, 1 REJECTED, 1 VOIDED, 1 EXCEEDS_PAID, 1 HAS_PAYMENTS\n"
        ),
        "{}",
        reconciled.stderr
    );
    let acks = reconciled.ok();
    for expected in [
        "e2,PARTIAL,PARTIALLY_PAID,400,false,\n",
        "e3,SETTLED,PAID,0,false,\n",
        "e4,VOIDED,VOID,0,false,\n",
        "e5,HAS_PAYMENTS,PARTIALLY_PAID,400,false,\"what is paid of it, 600,",
        "e6,EXCEEDS_PAID,PARTIALLY_PAID,400,false,more than the 600 that are paid\n",
        "e7,REJECTED,,0,false,amount_cents: -1 is less than 1\n",
    ] {
        assert!(acks.contains(expected), "{expected} is not in\n{acks}");
    }
    let ndjson = format!(
        "{{\"event_id\":\"e8\",\"invoice_id\":\"a\",\"kind\":\"refund\",\"amount_cents\":600,\
         \"currency\":\"USD\",\"received_at\":\"{at_once}\"}}\n"
    );
    let acks = run_with_stdin(&at(&["reconcile", "-"], &server.addr), &ndjson).ok();
    assert!(acks.ends_with("e8,PARTIAL,OPEN,1000,false,\n"), "{acks}");
    let table = server.run(&["summary"]).ok();
    let rows: Vec<Vec<&str>> =
        table.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[0][5..],
        ["credit_note_count", "credit_note_cents", "void_count", "void_cents"]
    );
    assert_eq!(rows[1], ["EUR", "1", "3000", "0", "3000", "0", "0", "0", "0"]);
    assert_eq!(rows[2], ["USD", "3", "2500", "-500", "1000", "1", "-500", "1", "2000"]);
    let listed =
        server.run(&["list", "--format", "csv", "--columns", "total_amount_cents,paid_cents"]);
    assert_eq!(listed.ok(), "total_amount_cents,paid_cents\n1000,0\n2000,0\n3000,0\n-500,-500\n");
    let exported = server.run(&["export"]).ok();
    let again = Server::start();
    run_with_stdin(&at(&["import", "-"], &again.addr), &exported).ok();
    assert!(again.summary().contains("\"credit_note_count\":1,\"credit_note_cents\":-500,"));
}

#[test]
fn a_kind_that_is_none_is_named_and_nothing_is_applied() {
    let server = Server::with_three();
    let csv = "event_id,invoice_id,kind,amount_cents,currency,received_at\n\
               e1,a,,1,USD,2023-01-01T00:00:00Z\ne2,a,gutschrift,1,USD,2023-01-01T00:00:00Z\n";
    let file = server.file("events.csv", csv);
    let message =
        ":3: column kind: \"gutschrift\": expected PAYMENT, REFUND or VOID; nothing is a payment";
    server.run(&["reconcile", &file]).fails(2, message);
    assert!(!server.summary().contains("\"paid_cents\":1"));
}
