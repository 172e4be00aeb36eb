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
