//! Opening a database: what is refused is told clearly, and left as it was.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, ReconcileEvent};
use billstream::server::{backup, check, restore};
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
    let mut server = TestServer::with_copy(&fixture(1), Config::default());
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
    assert_kept(&server.config.db, 1);
}

/// `tests/fixtures/version_2.db` was made by the program of the second schema (2bacbe8): `import` of `july` (v2-1 to
/// v2-6) and `august` (v2-7 to v2-9), `reconcile` of ten payments, several of one invoice among them whose ids and
/// times are not in the order of application, and of three that were refused. At the shell v2-7, paid in part, was
/// deleted, v2-shell inserted, and v2-5 and v2-8, which is paid in part, set to VOID.
#[test]
fn a_database_of_the_second_schema_is_brought_up_to_date() {
    let mut server = TestServer::with_copy(&fixture(2), Config::default());
    let client = server.client();
    assert_eq!((summary(&client).invoice_count, summary(&client).last_sequence), (9, 10));
    assert_eq!(outcome(&client, event("z-first", "v2-2", 500)), (8, false));
    assert_eq!(outcome(&client, payment("z-first", "v2-2", 500, "EUR")), (1, true));
    assert_eq!(outcome(&client, event("n-unknown", "v2-shell", 100)), (1, false));
    assert_eq!(outcome(&client, event("n-mismatch", "v2-1", 600)), (2, false));
    assert_eq!(upload(&client, [invoice("late-1", 100)]).unwrap().first_sequence, 11);
    server.stop();
    let report = check(&server.config).unwrap();
    assert_eq!((report.schema_version, report.faults), (3, contradictions(2)));
    assert_kept(&server.config.db, 2);

    // Orphans first, then by invoice; what is new is after all that was there.
    let events = "SELECT group_concat(event_sequence || '<' || previous_event_sequence || ' ' || event_id || ' '
                                      || invoice_id || ' ' || outstanding_cents, '\n')
                  FROM (SELECT * FROM reconcile_events ORDER BY event_sequence)";
    let events: String = server.sql().query_row(events, [], |row| row.get(0)).unwrap();
    let expected = "1<0 d-deleted v2-7 600\n2<0 m-only v2-1 600\n3<0 z-first v2-2 1500\n4<3 y-second v2-2 500\n\
                    5<4 a-third v2-2 -200\n6<0 q-settled v2-3 0\n7<0 x-zero v2-4 -5\n8<0 k-kwd v2-6 3000\n\
                    9<8 j-kwd v2-6 0\n10<0 c-part v2-8 500\n11<0 n-unknown v2-shell 1100\n\
                    12<2 n-mismatch v2-1 0";
    assert_eq!(events, expected);
    let voids = "SELECT group_concat(currency || ' ' || void_count || ' ' || void_cents, ', ')
                 FROM (SELECT * FROM currency_totals ORDER BY currency)";
    let voids: String = server.sql().query_row(voids, [], |row| row.get(0)).unwrap();
    assert_eq!(voids, "EUR 1 800, JPY 0 0, KWD 0 0, USD 1 500");
}

fn fixture(version: i32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/version_{version}.db"))
}

/// What the second schema let an operator do is told of by the third, which proves more.
fn contradictions(version: i32) -> Vec<String> {
    match version {
        2 => vec!["invoice \"v2-8\" is VOID, with 300 paid of 800".to_owned()],
        _ => Vec::new(),
    }
}

/// What a database keeps through every upgrade, as text.
fn contents_of_tables(db: &Path) -> Vec<String> {
    let conn = rusqlite::Connection::open(db).unwrap();
    let tables = [
        "sequence, invoice_id, customer_id, total_amount_cents, currency, status, paid_cents, issued_at,
         issued_at_nanos, memo FROM invoices",
        "event_id, invoice_id, amount_cents, currency, received_at, received_at_nanos, reference, outcome,
         invoice_status, outstanding_cents FROM reconcile_events WHERE outcome IN (1, 2, 3)",
        "batch_id, count, first_sequence, last_sequence FROM bulk_commits",
        "currency, invoice_count, total_cents, paid_cents FROM currency_totals",
        "customer_id, currency, invoice_count, total_cents, paid_cents FROM customer_totals",
    ];
    let rows = tables.iter().flat_map(|columns_of_table| {
        let mut select = conn.prepare(&format!("SELECT {columns_of_table}")).unwrap();
        let columns = select.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let values = (0..columns).map(|i| row.get_ref(i).unwrap());
            Ok(format!("{:?}", values.collect::<Vec<_>>()))
        };
        select.query_map([], row).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    rows
}

/// The copy of the database as it was is sound, and no less readable than it.
fn assert_kept(db: &Path, version: i32) {
    let kept = PathBuf::from(format!("{}.version-{version}", db.display()));
    let report = check(&config(&kept)).unwrap();
    assert_eq!((report.schema_version, report.faults), (version, Vec::new()));
    assert_eq!(contents_of_tables(&kept), contents_of_tables(&fixture(version)));
}

/// But for the numbers of the events, nothing is another afterwards; and there is no copy where none is wanted.
#[test]
fn an_upgrade_changes_nothing_that_was_there() {
    for version in [1, 2] {
        let config = Config { upgrade_copy: false, ..Config::default() };
        let mut server = TestServer::with_copy(&fixture(version), config);
        server.stop();
        assert_eq!(contents_of_tables(&server.config.db), contents_of_tables(&fixture(version)));
        let names = fs::read_dir(server.dir.path()).unwrap().map(|file| file.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().contains("version")));
    }
}

/// As one that was gone back from has it.
#[test]
fn an_older_copy_stays() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    fs::copy(fixture(2), &db).unwrap();
    fs::set_permissions(&db, fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(dir.path().join("bills.db.version-2"), "older").unwrap();
    // What a killed one has left.
    fs::write(dir.path().join("bills.db.upgrade-partial"), "in part").unwrap();
    Server::start(config(&db)).unwrap().shutdown().unwrap();
    let names = contents(dir.path()).into_iter().map(|(path, _)| path);
    let expected = ["bills.db", "bills.db-lock", "bills.db.version-2", "bills.db.version-2-2"];
    assert_eq!(names.collect::<Vec<_>>(), expected.map(|name| dir.path().join(name)));
    assert_eq!(fs::read(dir.path().join("bills.db.version-2")).unwrap(), b"older");
    let copy = dir.path().join("bills.db.version-2-2");
    assert_eq!(copy.metadata().unwrap().mode() & 0o777, 0o640);
    assert_eq!(contents_of_tables(&copy), contents_of_tables(&fixture(2)));
}

/// A view or a trigger of an operator is theirs: the one is as it was, the other hears of no upgrade.
#[test]
fn what_an_operator_added_outlives_an_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    fs::copy(fixture(2), &db).unwrap();
    let conn = rusqlite::Connection::open(&db).unwrap();
    conn.execute_batch(
        "CREATE VIEW payments AS SELECT e.event_id, i.memo FROM reconcile_events e JOIN invoices i USING (invoice_id);
         CREATE TABLE audit (what TEXT);
         CREATE TRIGGER audited AFTER UPDATE ON invoices BEGIN INSERT INTO audit VALUES (new.invoice_id); END;",
    )
    .unwrap();
    drop(conn);
    Server::start(config(&db)).unwrap().shutdown().unwrap();
    let conn = rusqlite::Connection::open(&db).unwrap();
    let count = |table: &str| -> i64 {
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("payments"), count("audit")), (9, 0));
    conn.execute("UPDATE invoices SET status = 2 WHERE sequence = 9", []).unwrap();
    assert_eq!(count("audit"), 1);
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

/// A payment in a currency.
fn payment(event_id: &str, invoice_id: &str, cents: i64, currency: &str) -> ReconcileEvent {
    ReconcileEvent { currency: currency.to_owned(), ..event(event_id, invoice_id, cents) }
}

fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

/// A database that no server has brought up to date yet is looked at as it is; a backup of it is one of its
/// version, and is brought up to date where it is served.
#[test]
fn an_old_database_is_checked_copied_and_restored() {
    for version in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let [old, copy, restored] =
            ["old.db", "copy.db", "restored.db"].map(|name| dir.path().join(name));
        fs::copy(fixture(version), &old).unwrap();
        let was = check(&config(&old)).unwrap();
        assert_eq!((was.schema_version, &was.faults), (version, &Vec::new()));
        let said = was.to_string();
        assert!(said.contains("the start of a server brings it to 3"), "{said}");
        backup(&old, &copy).unwrap();
        restore(&copy, &restored, true).unwrap();
        for db in [&old, &copy, &restored] {
            assert_eq!(check(&config(db)).unwrap(), was);
        }
        Server::start(config(&restored)).unwrap().shutdown().unwrap();
        let is = check(&config(&restored)).unwrap();
        assert_eq!((is.schema_version, is.invoice_count), (3, was.invoice_count));
        assert_eq!(is.faults, contradictions(version));
        assert!(!is.to_string().contains("brings it"), "{is}");
    }
}
