//! Faults in the middle: servers killed, connections and answers lost.

use std::time::Instant;

use super::proxy::Proxy;
use super::reconcile::Reconcile;
use super::support::*;

/// Enough rows to be in the middle of something: about 4 MB.
const MANY: u64 = 50_000;

#[test]
fn an_import_survives_a_server_killed_in_the_middle() {
    let mut server = Server::start();
    let csv = generate(MANY);
    let file = server.file("g.csv", &csv);
    let proxy = Proxy::start(&server, 1 << 20, u64::MAX);
    let import =
        Process::start(billstream(&at(&["import", &file, "--format", "ndjson"], &proxy.addr)));
    proxy.state.up.wait_until_shut();
    server.kill_and_restart();
    assert!(server.summary().starts_with("{\"invoice_count\":0,"));
    proxy.cut_over_to(&server);
    let output = import.output();
    assert!(output.stderr.contains("trying again"), "{output:?}");
    let result = output.ok();
    assert!(result.starts_with(&format!("{{\"created_count\":{MANY},")), "{result}");
    assert!(result.contains("\"already_applied\":false"), "{result}");
    assert!(server.run(&["export"]).ok() == csv, "export differs");
}

#[test]
fn an_import_whose_answer_is_lost_creates_nothing_twice() {
    let server = Server::start();
    let file = server.file("three.csv", THREE);
    // Each gate lets the first bytes through, the handshake of the connection, and then shuts.
    let proxy = Proxy::start(&server, 1, 1);
    let import =
        Process::start(billstream(&at(&["import", &file, "--format", "ndjson"], &proxy.addr)));
    proxy.state.up.wait_until_shut();
    proxy.state.down.wait_until_shut();
    proxy.state.up.open();
    let start = Instant::now();
    while !server.summary().starts_with("{\"invoice_count\":3,") {
        assert!(start.elapsed() < DEADLINE, "the upload does not arrive");
    }
    proxy.cut_over_to(&server);
    let output = import.output();
    assert!(output.stderr.contains("trying again"), "{output:?}");
    let result = output.ok();
    assert!(result.starts_with("{\"created_count\":3,"), "{result}");
    assert!(result.contains("\"already_applied\":true"), "{result}");
    assert_eq!(server.run(&["export"]).ok(), THREE);
}

#[test]
fn an_export_survives_a_server_killed_in_the_middle() {
    let mut server = Server::start();
    let csv = generate(MANY);
    let file = server.file("g.csv", &csv);
    server.run(&["import", &file]).ok();
    let later = server.file("later.csv", THREE);
    for args in [&["export"][..], &["export", "--batched"]] {
        let proxy = Proxy::start(&server, u64::MAX, 1 << 20);
        let export = Process::start(billstream(&at(args, &proxy.addr)));
        proxy.state.down.wait_until_shut();
        server.kill_and_restart();
        // Invoices of a later time are not of this export.
        server.run(&["import", &later, "--batch-id", "later"]).ok();
        proxy.cut_over_to(&server);
        let output = export.output();
        assert!(output.stderr.contains("trying again"), "{args:?}: {}", output.stderr);
        let exported = output.ok();
        let expected = if args.len() == 1 { csv.clone() } else { server.run(&["export"]).ok() };
        assert!(exported == expected, "{args:?}: the export differs");
    }
}

#[test]
fn max_rows_counts_over_a_lost_connection() {
    let mut server = Server::start();
    let csv = generate(MANY);
    let file = server.file("g.csv", &csv);
    server.run(&["import", &file]).ok();
    let proxy = Proxy::start(&server, u64::MAX, 1 << 20);
    let export = Process::start(billstream(&at(&["export", "--max-rows", "49000"], &proxy.addr)));
    proxy.state.down.wait_until_shut();
    server.kill_and_restart();
    proxy.cut_over_to(&server);
    let exported = export.output().ok();
    assert_eq!(exported.lines().count(), 49_001);
    assert!(csv.starts_with(&exported));
}

#[test]
fn a_reconcile_survives_a_server_killed_in_the_middle() {
    let mut server = Server::with_three();
    let proxy = Proxy::start(&server, u64::MAX, u64::MAX);
    let mut reconcile = Reconcile::start(&proxy.addr);
    reconcile.pay("e1", "a", 400);
    assert_eq!(reconcile.ack(), "e1,PARTIAL,PARTIALLY_PAID,600,false,");
    server.kill_and_restart();
    proxy.cut_over_to(&server);
    reconcile.pay("e2", "a", 600);
    assert_eq!(reconcile.ack(), "e2,SETTLED,PAID,0,false,");
    let (code, stderr) = reconcile.end();
    assert_eq!(code, 0, "{stderr}");
}
