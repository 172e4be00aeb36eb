//! Python's own gRPC against a running server: the rpcs, their statuses and their details, with stubs made from our
//! proto files, and with those of before, whose clients go on. Skipped, with the reason printed, where there is no
//! Python.

use std::path::Path;

use billstream::client::Client;
use billstream::proto::report::{
    CreateInvoiceRequest, EventKind, ReconcileEvent, ReconcileOutcome,
};
use billstream::protobuf::well_known_types::timestamp::Timestamp;
use billstream::server::check;
use billstream::{Config, Server};

#[path = "interop/contract.rs"]
mod contract;
#[path = "interop/python.rs"]
mod python;
#[path = "common/skip.rs"]
#[allow(dead_code)] // It has no need of a patched core.
mod skip;

use python::Python;

/// Small limits, so that the client reaches them.
fn config(dir: &Path) -> Config {
    Config {
        db: dir.join("bills.db"),
        listen: vec!["127.0.0.1:0".to_owned()],
        max_upload_rows: 5_000,
        max_reconciles: 2,
        // One client is to fill it.
        host_share_percent: 100,
        connection_share_percent: 100,
        max_page_size: 50,
        ..Config::default()
    }
}

/// Runs a script against the server.
fn run(python: &Python, script: &str, server: &Server, steps: &[&str]) {
    let mut command = python.script(script);
    let output = command.arg(server.addr().to_string()).args(steps).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} ended with {}", output.status);
}

/// A credit note, refunds and a void, as a client of today makes them; before_books.py knows them.
fn make_books(client: &Client) {
    let mut upload = client.upload().unwrap();
    for (invoice_id, total_amount_cents) in [("note-1", -500), ("bill-1", 1_000), ("bill-2", 300)] {
        let invoice = CreateInvoiceRequest {
            invoice_id: invoice_id.to_owned(),
            customer_id: "books".to_owned(),
            total_amount_cents,
            currency: "CHF".to_owned(),
            issued_at: Some(Timestamp::now()).into(),
            ..Default::default()
        };
        upload.send(&invoice).unwrap();
    }
    upload.commit("books").unwrap();
    let (events, acks) = client.reconcile().split();
    use EventKind::*;
    for (event_id, kind, invoice_id, amount_cents) in [
        ("new-1", EVENT_KIND_PAYMENT, "bill-1", 400),
        ("new-2", EVENT_KIND_REFUND, "bill-1", 150),
        ("new-3", EVENT_KIND_REFUND, "note-1", 200),
        ("new-4", EVENT_KIND_VOID, "bill-2", 300),
    ] {
        let event = ReconcileEvent {
            event_id: event_id.to_owned(),
            kind: kind.into(),
            invoice_id: invoice_id.to_owned(),
            amount_cents,
            currency: "CHF".to_owned(),
            received_at: Some(Timestamp::now()).into(),
            ..Default::default()
        };
        events.send(event).unwrap();
    }
    events.finish();
    let acks: Vec<_> = acks.flat_map(Result::unwrap).collect();
    let applied = [1, 1, 1, ReconcileOutcome::RECONCILE_OUTCOME_VOIDED as i32];
    assert_eq!(acks.iter().map(|ack| ack.outcome.value()).collect::<Vec<_>>(), applied, "{acks:?}");
}

#[test]
fn python_calls_every_rpc() {
    let python = match python::ready() {
        Ok(python) => python,
        Err(why) => return skip::skip(&why),
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config(dir.path())).unwrap();
    run(&python, "client.py", &server, &[]);
    server.shutdown().unwrap();
}

/// All that it did it does, and what others do with what it does not know it reads without an error.
#[test]
fn a_client_of_before_books_goes_on() {
    let python = match python::ready_with(contract::BEFORE_BOOKS) {
        Ok(python) => python,
        Err(why) => return skip::skip(&why),
    };
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let server = Server::start(config.clone()).unwrap();
    run(&python, "before_books.py", &server, &["calls"]);
    make_books(&Client::connect(&server.addr().to_string()));
    run(&python, "before_books.py", &server, &["books"]);
    server.shutdown().unwrap();
    assert_eq!(check(&config).unwrap().faults, [""; 0]);
}
