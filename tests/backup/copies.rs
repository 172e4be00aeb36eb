//! Copies under a load: whole, and with all that was acknowledged before they began.

use std::path::PathBuf;

use billstream::{Client, Config};

use crate::common::*;
use crate::load::{assert_holds, billstream, succeeds, Load};

/// A log that is copied and emptied all the time, so that a copy meets that too.
fn busy() -> TestServer {
    let config =
        Config { checkpoint_bytes: 256 << 10, wal_limit_bytes: 1 << 20, ..Config::default() };
    TestServer::with_copy(&database(100_000), config)
}

fn copy(server: &TestServer, name: &str) -> PathBuf {
    server.dir.path().join(name)
}

#[test]
fn a_backup_over_the_wire_under_load_holds_what_was_acknowledged_before() {
    let mut server = busy();
    let load = Load::start(&server.addr());
    for i in 0..2 {
        load.go_on(5);
        let (known, to) = (load.known(), copy(&server, &format!("wire-{i}.db")));
        succeeds(billstream("backup").args(["--addr", &server.addr()]).arg(&to));
        load.go_on(1);
        assert_holds(&to, &known);
    }
    let known = load.stop();
    // The log is not kept from being emptied any more.
    eventually("the log is emptied", || server.get().metrics().wal_bytes.get() == 0);
    let client = Client::connect(&server.addr());
    let to = copy(&server, "at-rest.db");
    client.backup_to(&to, |_, _| ()).unwrap();
    assert_holds(&to, &known);
    server.stop();
}

#[test]
fn a_backup_from_another_process_under_load_holds_what_was_acknowledged_before() {
    let mut server = busy();
    let load = Load::start(&server.addr());
    for i in 0..2 {
        load.go_on(5);
        let (known, to) = (load.known(), copy(&server, &format!("process-{i}.db")));
        succeeds(billstream("backup").arg("--db").arg(&server.config.db).arg(&to));
        load.go_on(1);
        assert_holds(&to, &known);
    }
    load.stop();
    server.stop();
}

#[test]
fn in_process_and_on_a_file_without_a_server_it_is_the_same() {
    let mut server = busy();
    let total = 100_000;
    let to = copy(&server, "in-process.db");
    let mut last = (0, 0);
    server.get().local().backup_to(&to, |bytes, of| last = (bytes, of)).unwrap();
    assert!(last.0 == last.1 && last.1 > 1 << 20, "{last:?}");
    assert_eq!(to.metadata().unwrap().len(), last.1);
    server.stop();
    let client = Client::open(&server.config.db).unwrap();
    let backup = client.backup().unwrap();
    assert_eq!((backup.head().invoice_count, backup.head().last_sequence), (total, total));
}
