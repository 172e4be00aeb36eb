//! `summary`, and what all clients share: flags, filters, a server that is not there.

use std::net::TcpListener;

use super::support::*;

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    run(&[]).fails(2, "Usage: billstream");
    run(&["exprot"]).fails(2, "unrecognized subcommand 'exprot'");
    run(&["summary", "--addr", "localhost"]).fails(2, "expected HOST:PORT");
    run(&["list", "--since", "yesterday"]).fails(2, "expected an RFC 3339 time");
    run(&["list", "--status", "paid,late"]).fails(2, "expected one of OPEN, PARTIALLY_PAID, PAID");
    run(&["list", "--page-size", "0"]).fails(2, "0 is not in 1..");
    run(&["export", "--columns", "memo,price"]).fails(2, "unknown column \"price\": did you mean");
    run(&["generate", "--rows", "-1"]).fails(2, "unexpected argument '-1'");
    run(&["import", "absent.csv"]).fails(2, "absent.csv: No such file");
    run(&["import", "/tmp"]).fails(2, "/tmp: a directory");
    run(&["reconcile", "absent.csv"]).fails(2, "absent.csv: No such file");
    let help = run(&["--help"]).ok();
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn a_server_that_is_not_there_is_exit_code_1() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    run(&at(&["summary", "--retry-for-secs", "0"], &addr)).fails(1, "UNAVAILABLE");
    run(&at(&["list", "--retry-for-secs", "0"], &addr)).fails(1, "UNAVAILABLE");
    run(&at(&["export", "--retry-for-secs", "0"], &addr)).fails(1, "UNAVAILABLE");
    let give_up = run_with_stdin(&at(&["import", "-", "--retry-for-secs", "1"], &addr), THREE);
    give_up.fails(1, "trying again in 100 ms (giving up after 1 s)");
}

#[test]
fn summary_and_filters_select() {
    let server = Server::with_three();
    let events = "event_id,invoice_id,amount_cents,currency,received_at\n\
                  e1,a,1000,USD,2023-01-01T00:00:00Z\ne2,b,1,USD,2023-01-01T00:00:00Z\n";
    run_with_stdin(&at(&["reconcile", "-"], &server.addr), events).ok();
    let ids = |args: &[&str]| {
        let list = server
            .run(&[&["list", "--format", "csv", "--columns", "invoice_id"], args].concat())
            .ok();
        let export = server.run(&[&["export", "--columns", "invoice_id"], args].concat()).ok();
        assert_eq!(list, export, "{args:?}");
        list.lines().skip(1).map(str::to_owned).collect::<Vec<_>>().join("")
    };
    assert_eq!(ids(&[]), "abc");
    assert_eq!(ids(&["--customer", "anna"]), "ac");
    assert_eq!(ids(&["--since", "2021-01-01"]), "bc");
    assert_eq!(ids(&["--since", "2020-06-01", "--until", "2021-01-01T00:00:00.500000001Z"]), "b");
    assert_eq!(ids(&["--status", "paid"]), "a");
    assert_eq!(ids(&["--status", "open,partially_paid"]), "bc");
    assert_eq!(ids(&["--status", "VOID"]), "");
    assert_eq!(
        server.run(&["export", "--after-sequence", "1", "--max-rows", "1"]).ok().lines().count(),
        2
    );
    assert_eq!(server.run(&["list", "--limit", "2"]).ok().lines().count(), 3);
    let anna = server.run(&["summary", "--customer", "anna", "--until", "2021-01-01"]).ok();
    let expected = "invoice_count  1\nlast_sequence  3\n\n\
                    currency  invoice_count  total_cents  paid_cents  outstanding_cents\n\
                    USD                   1         1000        1000                  0\n";
    assert_eq!(anna, expected);
}
