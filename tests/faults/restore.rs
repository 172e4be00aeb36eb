//! Backups and restores: killed, of the wrong file, beside a log that is not theirs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use billstream::client::Stub;
use rusqlite::config::DbConfig;
use rusqlite::Connection;

use crate::file::{backup, names, refusal, version_1, Case, ROWS};
use crate::skip::skip;
use crate::support::*;

/// Runs a command of the program to its end, or kills it at some moment.
fn run_or_kill(args: &[&str], db: &Path, rest: &[&Path], rng: &mut Rng) -> bool {
    let mut command = billstream();
    command.args(args).arg("--db").arg(db).args(rest).stderr(Stdio::null());
    let mut child = Guarded(command.spawn().unwrap());
    std::thread::sleep(rng.moment(60_000));
    let has_ended = child.0.try_wait().unwrap();
    child.kill();
    has_ended.is_some_and(|status| status.success())
}

#[test]
fn a_backup_that_was_killed_has_not_its_name() {
    let mut rng = Rng::new(seed("killed backup"));
    let case = Case::new();
    upload(&case.client, "b", 20_000, None).unwrap();
    let mut done = 0;
    for i in 0..20 {
        let copy = case.path(&format!("copy-{i}.db"));
        done += usize::from(run_or_kill(&["backup"], &case.db, &[&copy], &mut rng));
        if copy.exists() {
            let conn = open(&copy);
            assert_sound(&conn);
            assert_eq!(rows_by_customer(&conn)["b"], 20_000);
            let again =
                billstream().args(["backup", "--db"]).arg(&case.db).arg(&copy).output().unwrap();
            assert!(String::from_utf8_lossy(&again.stderr).contains("exists"), "{again:?}");
        }
    }
    println!("killed backup: {done} of 20 were quicker");
}

#[test]
fn a_restore_that_was_killed_leaves_the_old_or_the_new() {
    let mut rng = Rng::new(seed("killed restore"));
    let mut case = Case::new();
    let copy = case.path("copy.db");
    upload(&case.client, "b", 10_000, None).unwrap();
    backup(&case.db, &copy);
    let served = refusal_of_restore(&case.db, &copy);
    assert!(served.contains("another server is serving it"), "{served}");
    case.kill();
    let mut done = 0;
    for i in 0..20 {
        // The old one: of a server that was killed, with a log.
        let served = Served::start(&case.db, &[]);
        let client = Stub::new(&served.addr.to_string());
        upload(&client, &format!("old-{i}"), ROWS, None).unwrap();
        served.kill();
        let old = rows_by_customer_alone(&case);
        let from = format!("--from={}", copy.display());
        done +=
            usize::from(run_or_kill(&["restore", "--discard-old", &from], &case.db, &[], &mut rng));
        let served = Served::start(&case.db, &[]);
        let conn = open(&case.db);
        assert_sound(&conn);
        let now = rows_by_customer(&conn);
        let new = [("a".to_owned(), ROWS), ("b".to_owned(), 10_000)].into_iter().collect();
        assert!(now == old || now == new, "{i}: {now:?} is neither {old:?} nor the backup");
        served.stop();
    }
    println!("killed restore: {done} of 20 were quicker");
}

/// Of the database and its log, looked at in a copy.
fn rows_by_customer_alone(case: &Case) -> std::collections::HashMap<String, usize> {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bills.db", "bills.db-wal"] {
        fs::copy(case.path(name), dir.path().join(name)).unwrap();
    }
    rows_by_customer(&open(&dir.path().join("bills.db")))
}

fn refusal_of_restore(db: &Path, from: &Path) -> String {
    let restore =
        billstream().args(["restore", "--from"]).arg(from).arg("--db").arg(db).output().unwrap();
    assert_eq!(restore.status.code(), Some(1), "{restore:?}");
    String::from_utf8(restore.stderr).unwrap()
}

#[test]
fn a_restore_checks_the_backup_and_keeps_the_old() {
    let mut case = Case::new();
    let copy = case.path("copy.db");
    backup(&case.db, &copy);
    upload(&case.client, "b", ROWS, None).unwrap();
    let db = case.db.clone();
    case.kill();
    let other = case.path("other");
    fs::write(&other, "no database".repeat(100)).unwrap();
    assert!(refusal_of_restore(&db, &other).contains("not a SQLite database"));
    let conn = Connection::open(&copy).unwrap();
    conn.execute("UPDATE currency_totals SET total_cents = total_cents + 1", []).unwrap();
    drop(conn);
    assert!(refusal_of_restore(&db, &copy).contains("is not sound"));
    let conn = Connection::open(&copy).unwrap();
    conn.execute("UPDATE currency_totals SET total_cents = total_cents - 1", []).unwrap();
    drop(conn);
    let before = names(case.dir.path());
    let restore =
        billstream().args(["restore", "--from"]).arg(&copy).arg("--db").arg(&db).output().unwrap();
    assert!(restore.status.success(), "{restore:?}");
    let kept = case.path("bills.db.before-restore");
    assert_eq!(rows_by_customer(&open(&kept)).len(), 2, "the old one with its log");
    let conn = open(&db);
    assert_sound(&conn);
    assert_eq!(rows_by_customer(&conn).len(), 1);
    drop(conn);
    let temporary = |name: &&String| name.contains("-restore-") || name.contains("-partial-");
    assert_eq!(names(case.dir.path()).iter().filter(temporary).count(), 0, "{before:?}");
    Served::start(&db, &[]).stop();
}

/// A log of the first schema tells of no state, so no start could refuse it. The log's name cannot be removed
/// while it is mounted: what is there then is what a kill just before would leave.
#[test]
fn a_restore_puts_nothing_beside_a_log_that_is_not_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("bills.db"), dir.path().join("copy.db"));
    let (log, spare) = (dir.path().join("bills.db-wal"), dir.path().join("spare"));
    version_1(&db);
    version_1(&copy);
    let conn = Connection::open(&db).unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    let row = "INSERT INTO invoices VALUES (?1, ?1, 'old', 1, 'EUR', 1, 0, 0, 0, '')";
    conn.execute(row, [1]).unwrap();
    // Who reads what was before the last commit keeps the log from being brought into the file.
    let reader = Connection::open(&db).unwrap();
    reader.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM invoices").unwrap();
    conn.execute(row, [2]).unwrap();
    let mount = Command::new("mount").arg("--bind").args([&log, &log]).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return skip("nothing can be mounted");
    }
    let message = std::panic::catch_unwind(|| refusal_of_restore(&db, &copy));
    assert!(Command::new("umount").arg("--lazy").arg(&log).status().unwrap().success());
    assert!(message.unwrap().contains("bills.db-wal"));
    drop((reader, conn));
    assert!(log.metadata().unwrap().len() > 0);
    assert!(refusal(&db).contains("its log"));
    // And a kill after it is removed.
    fs::rename(&log, &spare).unwrap();
    assert!(refusal(&db).contains("it was cut to nothing"));
    fs::rename(&spare, &log).unwrap();
    let kept = dir.path().join("bills.db.before-restore");
    assert_eq!(rows_by_customer(&open(&kept))["old"], 2, "with its log");
    restore(&copy, &db);
    assert!(!log.exists());
    Served::start(&db, &[]).stop();
    assert_eq!(rows_by_customer(&open(&db)).len(), 0);
}

fn restore(from: &Path, db: &Path) {
    let mut restore = billstream();
    let done = restore.args(["restore", "--from"]).arg(from).arg("--db").arg(db).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// What is restored is then its own, and the group's.
#[test]
fn a_member_of_the_group_may_restore_a_file_of_another() {
    use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    const GROUP: u32 = 4242;
    let mut case = Case::new();
    let copy = case.path("copy.db");
    backup(&case.db, &copy);
    case.stop();
    // The program may be where another user cannot go.
    let program = case.path("program");
    fs::copy(billstream().get_program(), &program).unwrap();
    let paths = names(case.dir.path()).into_iter().map(|name| case.path(&name));
    for path in paths.chain([case.dir.path().to_owned()]) {
        if chown(&path, Some(4243), Some(GROUP)).is_err() {
            return skip("no file can be given to another");
        }
        let mode = if path.is_dir() || path == program { 0o770 } else { 0o660 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut restore = Command::new(&program);
    restore.args(["restore", "--from"]).arg(&copy).arg("--db").arg(&case.db);
    let done = restore.uid(4244).gid(GROUP).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let message = String::from_utf8(done.stderr).unwrap();
    assert!(message.contains("cannot be given to its owner 4243"), "{message}");
    let restored = case.db.metadata().unwrap();
    assert_eq!((restored.uid(), restored.gid(), restored.mode() & 0o777), (4244, GROUP, 0o660));
}
