//! Opening a database: what is refused is told clearly, and left as it was.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, ReconcileEvent};
use billstream::server::{backup, check};
use billstream::{Config, Error, Server};
use common::*;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, RpcStatusCode, WriteFlags};

fn config(db: &Path) -> Config {
    Config { db: db.to_owned(), listen: vec!["127.0.0.1:0".to_owned()], ..Config::default() }
}

/// Every file of a directory with its bytes.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// Starting a server on `db` and checking it fail with `why`, and leave the directory as it was.
fn assert_refused(db: &Path, why: &str) {
    let before = contents(db.parent().unwrap());
    for error in [Server::start(config(db)).err().unwrap(), check(&config(db)).unwrap_err()] {
        assert!(matches!(error, Error::Unusable(_)), "{error:?}");
        assert!(error.to_string().contains(why), "{why:?} is not in {error}");
        assert!(error.to_string().contains(db.to_str().unwrap()), "names the file: {error}");
    }
    assert!(before == contents(db.parent().unwrap()), "something was touched");
}

#[test]
fn another_kind_of_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("invoices.csv");
    fs::write(&db, "invoice_id,customer_id\n".repeat(100)).unwrap();
    assert_refused(&db, "not a SQLite database");
    fs::write(&db, "short").unwrap();
    assert_refused(&db, "not a SQLite database");
}

#[test]
fn a_database_of_another_program_is_refused() {
    for mode in ["delete", "wal"] {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("other.db");
        let conn = rusqlite::Connection::open(&db).unwrap();
        conn.pragma_update(None, "journal_mode", mode).unwrap();
        conn.execute_batch("CREATE TABLE t (a)").unwrap();
        drop(conn);
        assert_refused(&db, "of another program");
    }
}

#[test]
fn a_newer_database_is_refused() {
    let server = TestServer::start(Config::default());
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("newer.db");
    backup(&server.config.db, &db).unwrap();
    let conn = rusqlite::Connection::open(&db).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    assert_refused(&db, "version 99");
}

#[test]
fn a_directory_and_a_missing_directory_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let is_directory = Server::start(config(dir.path())).err().unwrap();
    assert!(is_directory.to_string().contains("it is a directory"), "{is_directory}");
    let missing = Server::start(config(&dir.path().join("no/such/file.db"))).err().unwrap();
    assert!(missing.to_string().contains("No such file or directory"), "{missing}");
}

#[test]
fn an_empty_file_becomes_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("empty.db");
    fs::write(&db, "").unwrap();
    Server::start(config(&db)).unwrap().shutdown().unwrap();
    assert!(check(&config(&db)).unwrap().faults.is_empty());
}

/// A log that was cut short is no fault of the file: SQLite puts it right.
#[test]
fn a_database_whose_server_was_killed_is_opened() {
    let server = TestServer::start(Config::default());
    upload(&server.client(), (0..500).map(|i| invoice(&format!("i{i}"), 1))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["bills.db", "bills.db-wal"] {
        fs::copy(server.dir.path().join(name), dir.path().join(name)).unwrap();
    }
    let config = config(&dir.path().join("bills.db"));
    let copy = Server::start(config.clone()).unwrap();
    let client = billstream::client::Stub::new(&copy.addr().to_string());
    assert_eq!(summary(&client).invoice_count, 500);
    copy.shutdown().unwrap();
    assert!(check(&config).unwrap().faults.is_empty());
}

/// Looking at the file from the process that serves it must not cost the server its locks.
#[test]
fn check_and_backup_leave_a_server_its_locks() {
    let server = TestServer::start(Config::default());
    upload(&server.client(), [invoice("a", 1)]).unwrap();
    assert_eq!(check(&server.config).unwrap().invoice_count, 1);
    let copy = server.dir.path().join("copy.db");
    assert!(backup(&server.config.db, &copy).unwrap() > 0);
    assert!(backup(&server.config.db, &copy).unwrap_err().to_string().contains("exists"));
    assert!(Server::start(server.config.clone()).is_err());
    // A process that has lost its locks lets another one remove the log under it.
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_billstream"))
        .args(["check", "--db", server.config.db.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    upload(&server.client(), [invoice("b", 1)]).unwrap();
    assert_eq!(check(&server.config).unwrap().invoice_count, 2);
}

#[test]
fn totals_that_do_not_match_are_found() {
    let server = TestServer::start(Config::default());
    upload(&server.client(), [invoice("a", 1)]).unwrap();
    server.sql().execute("UPDATE currency_totals SET total_cents = 2", []).unwrap();
    let report = check(&server.config).unwrap();
    assert_eq!(report.faults, ["the totals of USD are not those of its invoices"]);
    assert!(report.to_string().ends_with("the database is not sound"), "{report}");
}

/// `tests/fixtures/version_1.db` was made by the program of the first schema: uploads `may` and `june`,
/// payments of every outcome, an amount over today's bound, and its last invoice deleted at the shell.
#[test]
fn a_database_of_the_first_schema_is_brought_up_to_date() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version_1.db");
    let mut server = TestServer::with_copy(&old, Config::default());
    let client = server.client();
    let ids = |client: &Stub| -> Vec<String> {
        let (rows, error) =
            collect(client.export_invoices(&ExportRequest::new(), options()).unwrap());
        assert!(error.is_none(), "{error:?}");
        rows.into_iter().map(|row| row.invoice_id).collect()
    };
    assert_eq!(ids(&client), ["old-1", "old-2", "old-3", "old-4", "old-5", "old-6"]);
    // The number of the deleted one is not given again.
    assert_eq!(summary(&client).last_sequence, 7);
    assert_eq!(upload(&client, [invoice("late-1", 100)]).unwrap().first_sequence, 8);

    // What was applied is known; what was refused is judged anew.
    assert_eq!(outcome(&client, event("ev-part", "old-1", 400)), (1, true));
    assert_eq!(outcome(&client, event("ev-part", "old-1", 401)), (8, false));
    assert_eq!(outcome(&client, event("ev-unknown", "late-1", 100)), (2, false));
    assert_eq!(outcome(&client, event("ev-mismatch", "old-1", 100)), (1, false));
    assert_eq!(outcome(&client, event("ev-rejected", "old-1", 500)), (2, false));

    // An upload of before is known by its count alone.
    let rows = |n: i64| (0..n).map(|i| invoice(&format!("may-{i}"), 1));
    let again = upload(&client, rows(4).chain([commit("may", 4)])).unwrap();
    assert!(again.already_applied && again.last_sequence == 4, "{again:?}");
    let other = upload(&client, rows(3).chain([commit("may", 3)]));
    assert_status(other, RpcStatusCode::ABORTED, "used for other content");

    server.stop();
    let report = check(&server.config).unwrap();
    assert_eq!((report.schema_version, report.faults), (3, Vec::new()));
}

/// The acknowledgement of a payment: the number of its outcome, and whether it is known.
fn outcome(client: &Stub, event: ReconcileEvent) -> (i32, bool) {
    let (mut sink, mut acks) = client.reconcile(options()).unwrap();
    let ack = block_on(async {
        sink.send((event, WriteFlags::default())).await.unwrap();
        sink.close().await.unwrap();
        acks.next().await.unwrap().unwrap()
    });
    (ack.outcome.value(), ack.duplicate)
}

fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

/// A database that no server has brought up to date yet is looked at as it is.
#[test]
fn a_database_of_the_first_schema_is_checked_and_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (old, copy) = (dir.path().join("old.db"), dir.path().join("copy.db"));
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version_1.db");
    fs::copy(fixture, &old).unwrap();
    backup(&old, &copy).unwrap();
    for db in [old, copy] {
        let report = check(&config(&db)).unwrap();
        assert_eq!((report.schema_version, report.invoice_count), (1, 6));
        assert_eq!((report.last_sequence, report.faults), (6, Vec::new()));
    }
}
