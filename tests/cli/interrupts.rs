//! Ctrl-C: the command says where to go on from, and that is where.

use std::io::{BufRead, BufReader, Read};

use super::proxy::Proxy;
use super::reconcile::Reconcile;
use super::support::*;

/// Ended by the signal, as a shell wants to see it.
const INTERRUPTED: i32 = -2;

#[test]
fn an_interrupted_export_goes_on_from_the_cursor_it_names() {
    let server = Server::start();
    let csv = generate(50_000);
    server.run(&["import", &server.file("g.csv", &csv)]).ok();
    for format in [&["export"][..], &["export", "--batched"]] {
        let mut process = Process::start(billstream(&at(format, &server.addr)));
        let mut stdout = BufReader::new(process.child.stdout.take().unwrap());
        let mut printed = String::new();
        stdout.read_line(&mut printed).unwrap();
        process.signal("INT");
        // It may be in the middle of a write, which is finished.
        stdout.read_to_string(&mut printed).unwrap();
        assert_eq!(process.wait(), INTERRUPTED);
        let said = process.stderr();
        let rows = printed.lines().count() - 1;
        assert!(said.contains(&format!("interrupted: {rows} rows are printed; ")), "{said}");
        let cursor = said.trim_end().rsplit(' ').next().unwrap();
        let rest = server.run(&["export", "--after-sequence", cursor]).ok();
        let rest = rest.split_once('\n').unwrap().1;
        assert!(rows < 50_000 && printed + rest == csv, "{rows} rows, then from {cursor}");
    }
}

#[test]
fn an_interrupted_import_is_repeated_with_the_id_it_names() {
    let server = Server::start();
    let file = server.file("g.csv", &generate(50_000));
    let proxy = Proxy::start(&server, 1 << 20, u64::MAX);
    let mut import = Process::start(billstream(&at(&["import", &file], &proxy.addr)));
    proxy.state.up.wait_until_shut();
    import.signal("INT");
    assert_eq!(import.wait(), INTERRUPTED);
    let said = import.stderr();
    let said = said.lines().find(|line| line.starts_with("interrupted: ")).expect(&said);
    let id = said.split_once("--batch-id ").unwrap().1.split(',').next().unwrap();
    proxy.state.up.open();
    assert!(server.summary().starts_with("{\"invoice_count\":0,"));
    let again = server.run(&["import", &file, "--batch-id", id, "--format", "ndjson"]).ok();
    assert!(again.starts_with("{\"created_count\":50000,"), "{again}");
}

#[test]
fn an_interrupted_reconcile_names_the_last_payment_that_is_acknowledged() {
    let server = Server::with_three();
    let mut reconcile = Reconcile::start(&server.addr);
    for event in ["e1", "e2"] {
        reconcile.pay(event, "a", 10);
        reconcile.ack();
    }
    reconcile.process.signal("INT");
    assert_eq!(reconcile.process.wait(), INTERRUPTED);
    let said = reconcile.process.stderr();
    assert!(
        said.contains("interrupted: the payments up to \"e2\" are acknowledged; repeat"),
        "{said}"
    );
}

#[test]
fn a_wait_for_the_next_try_is_interrupted_too() {
    for args in [
        &["export"][..],
        &["import", "-"],
        &["summary"],
        &["list"],
        &["show", "a"],
        &["reconcile", "-"],
    ] {
        let mut command = billstream(&at(args, "127.0.0.1:1"));
        command.stdin(std::process::Stdio::piped());
        let mut process = Process::start(command);
        let input = if args[0] == "reconcile" {
            format!("{EVENTS}{}", event_row(1, "a"))
        } else {
            THREE.to_owned()
        };
        std::io::Write::write_all(&mut process.child.stdin.take().unwrap(), input.as_bytes())
            .unwrap();
        process.says("trying again");
        process.signal("INT");
        assert_eq!(process.wait(), INTERRUPTED, "{args:?}");
    }
}
