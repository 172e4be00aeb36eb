//! The upgrade of a file of the second schema: killed at any moment, on a disk that is too small, and what it takes
//! of time and memory.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::Connection;

use crate::disks::SmallDisk;
use crate::file::names;
use crate::support::{assert_sound, billstream, open, seed, variable, Guarded, Rng, Served};

/// A file of version 2 as its server leaves it, with an event for each invoice.
fn version_2(db: &Path, invoices: u64) {
    let conn = Connection::open(db).unwrap();
    conn.execute_batch(include_str!("../../sql/migrations/0001_initial.sql")).unwrap();
    conn.execute_batch(include_str!("../../sql/migrations/0002_what_was_given_once.sql")).unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = off; BEGIN;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {invoices})
         INSERT INTO invoices (sequence, invoice_id, customer_id, total_amount_cents, currency, status, paid_cents,
                               issued_at, issued_at_nanos, memo)
         SELECT i, printf('INV-2026-%08d', i * 7919 % {invoices}), printf('customer-%05d', i * 31 % 5000),
                i % 10000 + 500, substr('USDEURJPY', i % 3 * 3 + 1, 3), 2 + i % 2, iif(i % 2, i % 10000 + 500, 300),
                1700000000 + i * 30, 0, printf('memo of invoice number %d', i) FROM n;
         INSERT INTO reconcile_events
         SELECT printf('%08x-%d', sequence * 2654435761 % 4294967296, sequence), invoice_id, paid_cents, currency,
                issued_at, 0, printf('bank reference %d', sequence), status - 1, status,
                total_amount_cents - paid_cents, '' FROM invoices ORDER BY 1;
         INSERT INTO currency_totals
         SELECT currency, count(*), sum(total_amount_cents), sum(paid_cents) FROM invoices GROUP BY 1;
         INSERT INTO customer_totals
         SELECT customer_id, currency, count(*), sum(total_amount_cents), sum(paid_cents) FROM invoices GROUP BY 1, 2;
         UPDATE ledger SET last_sequence = {invoices};
         PRAGMA application_id = {}; PRAGMA user_version = 2; COMMIT; PRAGMA wal_checkpoint(TRUNCATE);",
        i32::from_be_bytes(*b"bill"),
    ))
    .unwrap();
}

/// A command that opens the database, and ends once it is upgraded.
fn upgrading(db: &Path) -> Command {
    let mut command = billstream();
    command.args(["summary", "--db"]).arg(db).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn one(conn: &Connection, query: &str) -> i64 {
    conn.query_row(query, [], |row| row.get(0)).unwrap()
}

/// The version of a file that is sound and whole.
fn assert_whole(db: &Path, invoices: u64) -> i64 {
    let conn = open(db);
    assert_sound(&conn);
    let version = one(&conn, "SELECT user_version FROM pragma_user_version");
    let rows = |table: &str| one(&conn, &format!("SELECT count(*) FROM {table}")) as u64;
    assert_eq!((rows("invoices"), rows("reconcile_events")), (invoices, invoices), "{version}");
    if version == 3 {
        let last = "SELECT count(*) FROM invoices AS i JOIN reconcile_events AS e
                    ON e.event_sequence = i.last_event_sequence AND e.invoice_id = i.invoice_id
                       AND e.previous_event_sequence = 0 AND e.amount_cents = i.paid_cents";
        assert_eq!(one(&conn, last) as u64, invoices);
    }
    version
}

/// Each kept copy is whole, and one is there where the file is a new one.
fn assert_copies(dir: &Path, version: i64, invoices: u64) {
    let names = names(dir).into_iter().filter(|name| name.starts_with("bills.db.version-2"));
    let copies: Vec<PathBuf> = names.map(|name| dir.join(name)).collect();
    assert!(version == 2 || !copies.is_empty(), "no copy was kept");
    for copy in copies {
        assert_eq!(assert_whole(&copy, invoices), 2);
        fs::remove_file(copy).unwrap();
    }
}

/// The moments are spread over the time that it takes from the line that it begins with.
#[test]
fn an_upgrade_that_was_killed_leaves_the_old_file_or_the_new() {
    let mut rng = Rng::new(seed("killed upgrade"));
    let kills = variable("BILLSTREAM_TEST_UPGRADE_KILLS", 8);
    let invoices = variable("BILLSTREAM_TEST_UPGRADE_KILL_ROWS", 20_000);
    let dir = tempfile::tempdir().unwrap();
    let (old, db) = (dir.path().join("old"), dir.path().join("bills.db"));
    version_2(&old, invoices);
    fs::copy(&old, &db).unwrap();
    let whole = upgrade_and_kill(&db, None);
    assert_eq!(assert_whole(&db, invoices), 3);
    assert_copies(dir.path(), 3, invoices);
    let (mut were_old, mut were_new) = (0, 0);
    for i in 0..kills {
        // Every other one goes on with what the last kill has left.
        if i % 2 == 0 || assert_whole(&db, invoices) == 3 {
            fs::copy(&old, &db).unwrap();
        }
        // One in a slice of the time each, and past its end.
        let slice = whole.mul_f64(1.1) / kills as u32;
        let moment = slice * i as u32 + rng.moment(slice.as_micros() as u64);
        upgrade_and_kill(&db, Some(moment));
        let version = assert_whole(&db, invoices);
        assert_copies(dir.path(), version, invoices);
        *(if version == 3 { &mut were_new } else { &mut were_old }) += 1;
        if i % 2 == 1 {
            Served::start(&db, &[]).stop();
            assert_eq!(assert_whole(&db, invoices), 3);
        }
    }
    Served::start(&db, &[]).stop();
    assert_eq!(assert_whole(&db, invoices), 3);
    assert!(!names(dir.path()).iter().any(|name| name.contains("partial")), "{dir:?}");
    println!("killed upgrade of {whole:?}: {kills} kills, {were_old} old and {were_new} new");
}

/// Kills it so long after it said that it begins; how long it took otherwise.
fn upgrade_and_kill(db: &Path, after: Option<Duration>) -> Duration {
    let mut child = Guarded(upgrading(db).spawn().unwrap());
    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("is brought from version 2"), "{line}");
    let begun = Instant::now();
    if let Some(after) = after {
        std::thread::sleep(after);
        child.kill();
    }
    log.read_to_string(&mut line).unwrap();
    let status = child.0.wait().unwrap();
    assert!(after.is_some() || status.success(), "{line}");
    begun.elapsed()
}

/// Before there is room for the copy, and before there is room for the log.
#[test]
fn an_upgrade_without_room_leaves_the_old_file() {
    const MIB: u64 = 1 << 20;
    const ROWS: u64 = 20_000;
    let Some(disk) = SmallDisk::mount(64 << 20) else { return };
    let db = disk.path().join("bills.db");
    version_2(&db, ROWS);
    let bytes = db.metadata().unwrap().len();
    let room = |bytes: u64| {
        let _ = fs::remove_file(disk.path().join("ballast"));
        let free = 64 * MIB - fs::metadata(&db).unwrap().len();
        disk.fill("ballast", (free - bytes) as usize);
    };
    let refusals = [
        (
            bytes / 2,
            "--upgrade-copy=true",
            "no copy of it can be kept, so it is not upgraded: the disk of",
        ),
        (bytes + bytes / 2, "--upgrade-copy=true", "It takes as much room again as the file has"),
        (
            bytes / 2,
            "--upgrade-copy=false",
            "of its schema to 3, and is as it was: the disk is full",
        ),
    ];
    for (free, copy, why) in refusals {
        room(free);
        let mut serve = billstream();
        serve.args(["serve", "--listen", "127.0.0.1:0", copy, "--db"]).arg(&db);
        let refused = serve.output().unwrap();
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(message.contains(why), "{why:?} is not in {message}");
        assert_eq!(refused.status.code(), Some(1), "{message}");
        assert_eq!(assert_whole(&db, ROWS), 2);
        assert!(!names(disk.path()).iter().any(|name| name.starts_with("bills.db.")), "{message}");
    }
    fs::remove_file(disk.path().join("ballast")).unwrap();
    Served::start(&db, &[]).stop();
    assert_eq!(assert_whole(&db, ROWS), 3);
}

/// Of all that the process takes, gRPC among it.
#[test]
fn an_upgrade_takes_little_memory() {
    let invoices = variable("BILLSTREAM_TEST_UPGRADE_ROWS", 100_000);
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    version_2(&db, invoices);
    let bytes = db.metadata().unwrap().len();
    let begun = Instant::now();
    let served = Served::start(&db, &[]);
    let took = begun.elapsed();
    let peak_kib = served.peak_kib();
    served.stop();
    println!("upgrade of {invoices} invoices and events, {bytes} bytes: {took:?}, at most {peak_kib} KiB of memory");
    assert!(peak_kib <= 64 << 10, "{peak_kib} KiB");
    assert_eq!(assert_whole(&db, invoices), 3);
}
