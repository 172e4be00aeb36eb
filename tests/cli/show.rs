//! `show`, and `export --events`: the ledger.

use super::support::*;

const PAID: &str = "\
event_id,invoice_id,amount_cents,currency,received_at,reference
e1,a,400,USD,2023-01-01T00:00:00Z,first
e2,c,3000,EUR,2023-01-02T00:00:00Z,
e3,a,600,USD,2023-01-03T00:00:00.25Z,\"second, last\"
";

const LEDGER: &str = "\
event_id,invoice_id,amount_cents,currency,received_at,reference,kind,paid_change_cents,outcome,invoice_status,outstanding_cents,event_sequence
e1,a,400,USD,2023-01-01T00:00:00Z,first,PAYMENT,400,PARTIAL,PARTIALLY_PAID,600,1
e2,c,3000,EUR,2023-01-02T00:00:00Z,,PAYMENT,3000,SETTLED,PAID,0,2
e3,a,600,USD,2023-01-03T00:00:00.25Z,\"second, last\",PAYMENT,600,SETTLED,PAID,0,3
";

fn paid() -> Server {
    let server = Server::with_three();
    let file = server.file("paid.csv", PAID);
    server.run(&["reconcile", &file]).ok();
    server
}

#[test]
fn show_gives_an_invoice_and_its_events_newest_first() {
    let server = paid();
    let table = "\
invoice_id          a
customer_id         anna
total_amount_cents  1000
currency            USD
issued_at           2020-01-01T00:00:00Z
memo
status              PAID
paid_cents          1000
sequence            1

event_id  invoice_id  amount_cents  currency  received_at              reference     kind     paid_change_cents  outcome  invoice_status  outstanding_cents  event_sequence
e3        a                    600  USD       2023-01-03T00:00:00.25Z  second, last  PAYMENT                600  SETTLED  PAID                            0               3
e1        a                    400  USD       2023-01-01T00:00:00Z     first         PAYMENT                400  PARTIAL  PARTIALLY_PAID                600               1
";
    let shown = server.run(&["show", "a"]);
    assert_eq!(shown.stderr, "");
    assert_eq!(shown.ok(), table);
    let one = server.run(&["show", "a", "--max-events", "1", "--format", "ndjson"]);
    assert_eq!(one.stderr, "there are older events; --max-events 0 prints all\n");
    let json = "{\"invoice_id\":\"a\",\"customer_id\":\"anna\",\"total_amount_cents\":1000,\"currency\":\"USD\",\
        \"issued_at\":\"2020-01-01T00:00:00Z\",\"memo\":\"\",\"status\":\"PAID\",\"paid_cents\":1000,\"sequence\":1,\
        \"events\":[{\"event_id\":\"e3\",\"invoice_id\":\"a\",\"amount_cents\":600,\"currency\":\"USD\",\
        \"received_at\":\"2023-01-03T00:00:00.25Z\",\"reference\":\"second, last\",\"kind\":\"PAYMENT\",\
        \"paid_change_cents\":600,\"outcome\":\"SETTLED\",\"invoice_status\":\"PAID\",\"outstanding_cents\":0,\
        \"event_sequence\":3}]}\n";
    assert_eq!(one.ok(), json);
    let csv = server.run(&["show", "c", "--format", "csv"]).ok();
    let fields = "customer_id,total_amount_cents,issued_at,memo,status,paid_cents,sequence";
    let rest = LEDGER.lines().next().unwrap();
    let row = format!(
        "anna,3000,2022-01-01T00:00:00Z,Zürich,PAID,3000,3,{}",
        LEDGER.lines().nth(2).unwrap()
    );
    assert_eq!(csv, format!("{fields},{rest}\n{row}\n"));
    // An invoice without events is one still.
    assert_eq!(server.run(&["show", "b"]).ok().lines().count(), 9);
}

#[test]
fn show_says_that_there_is_no_such_invoice() {
    let server = paid();
    let output = server.run(&["show", "none"]);
    assert_eq!(output.stdout, "");
    output.fails(1, "error: NOT_FOUND: no invoice has the invoice_id \"none\"");
    run(&["show"]).fails(2, "<INVOICE_ID>");
    run(&["show", ""]).fails(2, "a value is required");
}

#[test]
fn more_events_than_a_page_are_shown_on_a_file_too() {
    let mut server = Server::with_three();
    let events: String = (0..2500).map(|i| event_row(i, "a")).collect();
    let file = server.file("events.csv", &format!("{EVENTS}{events}"));
    server.run(&["reconcile", &file]).ok();
    let all = ["show", "a", "--format", "csv", "--max-events", "0"];
    let shown = server.run(&all).ok();
    let ids: Vec<_> = shown.lines().skip(1).map(|row| row.split(',').nth(7).unwrap()).collect();
    assert!(ids.iter().map(|id| id.to_string()).eq((0..2500).rev().map(|i| format!("e{i}"))));
    let ledger = server.run(&["export", "--events"]).ok();
    assert_eq!(server.run(&["show", "a", "--format", "csv"]).ok().lines().count(), 101);
    server.process.signal("TERM");
    server.process.wait();
    let db = text_of(&server.path("bills.db"));
    assert_eq!(run(&[&all[..], &["--db", &db]].concat()).ok(), shown);
    assert_eq!(run(&["export", "--events", "--db", &db]).ok(), ledger);
}

#[test]
fn the_ledger_is_exported_in_its_order_and_goes_on_after_a_sequence() {
    let server = paid();
    assert_eq!(server.run(&["export", "--events"]).ok(), LEDGER);
    let rows: Vec<_> = LEDGER.lines().collect();
    let events = |args: &[&str]| server.run(&[&["export", "--events"], args].concat()).ok();
    assert_eq!(
        events(&["--after-event-sequence", "1", "--max-rows", "1"]),
        format!("{}\n{}\n", rows[0], rows[2])
    );
    assert_eq!(events(&["--after-event-sequence", "3"]), format!("{}\n", rows[0]));
    let json = events(&["--format", "ndjson"]);
    assert_eq!(json.lines().count(), 3);
    assert!(
        json.starts_with("{\"event_id\":\"e1\",\"invoice_id\":\"a\",\"amount_cents\":400,"),
        "{json}"
    );
    for (args, message) in [
        (&["--events", "--customer", "anna"][..], "cannot be used with"),
        (&["--events", "--status", "paid"], "cannot be used with"),
        (&["--events", "--after-sequence", "1"], "cannot be used with"),
        (&["--after-event-sequence", "1"], "--events"),
        (&["--events", "--after-event-sequence", "-1"], "-1"),
    ] {
        run(&[&["export"], args].concat()).fails(2, message);
    }
}

#[test]
fn an_export_of_events_goes_on_where_a_server_was_killed() {
    let mut server = Server::with_three();
    let events: String = (0..20_000).map(|i| event_row(i, "a")).collect();
    let file = server.file("events.csv", &format!("{EVENTS}{events}"));
    server.run(&["reconcile", &file]).ok();
    let whole = server.run(&["export", "--events"]).ok();
    assert_eq!(whole.lines().count(), 20_001);
    let proxy = super::proxy::Proxy::start(&server, u64::MAX, 300_000);
    let export = Process::start(billstream(&at(&["export", "--events"], &proxy.addr)));
    proxy.state.down.wait_until_shut();
    server.kill_and_restart();
    proxy.cut_over_to(&server);
    let output = export.output();
    assert!(output.stderr.contains("trying again"), "{output:?}");
    assert!(output.ok() == whole, "the export differs");
}
