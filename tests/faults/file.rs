//! The file under the server: deleted, moved, replaced, cut, given a second name, its log gone or garbled, a
//! copy put in its place. Nothing is acknowledged that is not in the file at its path, and nothing is served
//! that is not what was there.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, SummaryRequest};
use futures::executor::block_on;
use futures::TryStreamExt;
use grpcio::RpcStatusCode;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::skip::skip;
use crate::support::{
    assert_sound, billstream, code, open, options, rows_by_customer, upload, wait_for, Guarded,
    Served,
};

pub const ROWS: usize = 30;

/// A served database with a customer `a`, and room for what is put beside it.
pub struct Case {
    pub dir: TempDir,
    pub db: PathBuf,
    /// `None` once it has ended.
    pub served: Option<Served>,
    pub client: Stub,
}

impl Case {
    pub fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("bills.db");
        let served = Served::start(&db, &[]);
        let client = Stub::new(&served.addr.to_string());
        upload(&client, "a", ROWS, Some("a")).unwrap();
        Case { dir, db, served: Some(served), client }
    }

    pub fn kill(&mut self) {
        self.served.take().unwrap().kill();
    }

    pub fn stop(&mut self) {
        self.served.take().unwrap().stop();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> PathBuf {
        self.path("bills.db-wal")
    }

    /// Commits something, and comes back while it is in the log alone.
    pub fn fill_log(&self) {
        for i in 0.. {
            let name = format!("log-{i}");
            upload(&self.client, &name, ROWS, Some(&name)).unwrap();
            // So that a change after this has another time.
            wait_for("the log is a moment old", || {
                let changed = self.log().metadata().unwrap().modified().unwrap();
                changed.elapsed().is_ok_and(|age| age.as_millis() > 20)
            });
            if self.log().metadata().unwrap().len() > 0 {
                return;
            }
        }
    }

    pub fn assert_refused(&self, what: &str) {
        for i in 0..6 {
            let name = format!("after-{i}");
            let refused = upload(&self.client, &name, ROWS, Some(&name));
            let error = refused.err().unwrap_or_else(|| panic!("{what}: {name} was acknowledged"));
            assert_eq!(code(&error), Some(RpcStatusCode::UNAVAILABLE), "{what}: {error}");
        }
    }
}

pub fn backup(db: &Path, to: &Path) {
    let done = billstream().args(["backup", "--db"]).arg(db).arg(to).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// What `billstream serve` says where it must not serve.
pub fn refusal(db: &Path) -> String {
    let mut serve = billstream()
        .args(["serve", "--listen", "127.0.0.1:0", "--db"])
        .arg(db)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (stdout, mut stderr) = (serve.stdout.take().unwrap(), serve.stderr.take().unwrap());
    let _guarded = Guarded(serve);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "", "it serves {}", db.display());
    let mut message = String::new();
    stderr.read_to_string(&mut message).unwrap();
    message
}

pub fn names(dir: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

fn garble(file: &Path, at: u64) {
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(&[0x5a; 4096], at).unwrap();
}

fn cut(file: &Path, bytes: u64) {
    File::options().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

/// What leaves the server with a file or a log that is not the one at its path, or not as it was.
type Damage = (&'static str, fn(&Case));

const DAMAGES: &[Damage] = &[
    ("the file is deleted", |case| fs::remove_file(&case.db).unwrap()),
    ("the file is moved", |case| fs::rename(&case.db, case.path("moved.db")).unwrap()),
    ("the file is replaced", |case| fs::rename(case.path("copy.db"), &case.db).unwrap()),
    ("another is copied over the file", |case| {
        fs::copy(case.path("copy.db"), &case.db).unwrap();
    }),
    ("the file is cut to nothing", |case| cut(&case.db, 0)),
    ("the file is cut in half", |case| cut(&case.db, case.db.metadata().unwrap().len() / 2)),
    ("the file has a second name", |case| fs::hard_link(&case.db, case.path("second.db")).unwrap()),
    ("its directory is moved", |case| {
        let db = case.path("bills.db-dir");
        fs::create_dir(&db).unwrap();
        for name in ["bills.db", "bills.db-wal", "bills.db-shm"] {
            fs::rename(case.path(name), db.join(name)).unwrap();
        }
    }),
    ("the log is deleted", |case| fs::remove_file(case.log()).unwrap()),
    ("the log is replaced", |case| {
        fs::copy(case.log(), case.path("log")).unwrap();
        fs::rename(case.path("log"), case.log()).unwrap();
    }),
    ("the log is cut to nothing", |case| cut(&case.log(), 0)),
    ("the log is cut", |case| cut(&case.log(), case.log().metadata().unwrap().len() - 5000)),
    ("the log is garbled at its beginning", |case| garble(&case.log(), 0)),
    ("the log is garbled in the middle", |case| {
        garble(&case.log(), case.log().metadata().unwrap().len() / 2);
    }),
];

#[test]
fn nothing_is_acknowledged_once_the_file_or_its_log_is_another() {
    for (what, damage) in DAMAGES {
        let mut case = Case::new();
        backup(&case.db, &case.path("copy.db"));
        case.fill_log();
        damage(&case);
        case.assert_refused(what);
        case.kill();
    }
}

/// It is still open: what was acknowledged can be read, until the server ends.
#[test]
fn a_file_that_comes_back_takes_writes_again() {
    let mut case = Case::new();
    let count = || {
        let summary = case.client.get_summary(&SummaryRequest::new(), options()).unwrap();
        summary.invoice_count as usize
    };
    let (moved, second) = (case.path("moved.db"), case.path("second.db"));
    fs::rename(&case.db, &moved).unwrap();
    case.assert_refused("moved");
    assert!(count() >= ROWS);
    fs::rename(&moved, &case.db).unwrap();
    upload(&case.client, "b", ROWS, Some("b")).unwrap();
    fs::hard_link(&case.db, &second).unwrap();
    case.assert_refused("a second name");
    fs::remove_file(second).unwrap();
    upload(&case.client, "c", ROWS, Some("c")).unwrap();
    case.kill();
    let conn = open(&case.db);
    assert_sound(&conn);
    let rows = rows_by_customer(&conn);
    assert!(["a", "b", "c"].iter().all(|name| rows[*name] == ROWS), "{rows:?}");
}

/// Another process may write to the database, copy its log and rewrite all of it, as it likes.
#[test]
fn a_lawful_writer_beside_the_server_is_no_fault() {
    let mut case = Case::new();
    let shell = Connection::open(&case.db).unwrap();
    shell.busy_timeout(crate::support::DEADLINE).unwrap();
    let statements = [
        "UPDATE invoices SET memo = 'shell'",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "DELETE FROM invoices WHERE sequence % 7 = 0",
        "VACUUM",
        "PRAGMA wal_checkpoint(RESTART)",
        "UPDATE invoices SET memo = 'again'",
    ];
    for (i, statement) in statements.into_iter().cycle().take(40).enumerate() {
        // It gives rows for a checkpoint, and none for others.
        let mut statement = shell.prepare(statement).unwrap();
        let mut rows = statement.raw_query();
        while rows.next().unwrap().is_some() {}
        drop(rows);
        let name = format!("b{i}");
        upload(&case.client, &name, 3, Some(&name)).unwrap_or_else(|e| panic!("{i}: {e}"));
    }
    drop(shell);
    let db = case.db.clone();
    case.kill();
    // And the start after a kill finds nothing to refuse.
    Served::start(&db, &[]).stop();
    assert_sound(&open(&db));
}

#[test]
fn a_malformed_file_takes_no_more_uploads() {
    let mut case = Case::new();
    case.stop();
    let conn = Connection::open(&case.db).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'invoices_by_customer'";
    let page: u64 = conn.query_row(root, [], |row| row.get::<_, i64>(0)).unwrap() as u64;
    drop(conn);
    garble(&case.db, (page - 1) * 4096);
    let served = Served::start(&case.db, &[]);
    let client = Stub::new(&served.addr.to_string());
    let first = upload(&client, "b", ROWS, None).unwrap_err();
    assert_eq!(code(&first), Some(RpcStatusCode::INTERNAL), "{first}");
    for _ in 0..3 {
        let next = upload(&client, "b", ROWS, None).unwrap_err();
        assert_eq!(code(&next), Some(RpcStatusCode::UNAVAILABLE), "{next}");
    }
}

/// It need not be in what an upload looks at.
#[test]
fn a_file_that_a_read_finds_malformed_takes_no_more_uploads() {
    let mut case = Case::new();
    upload(&case.client, "b", 5000, None).unwrap();
    case.stop();
    let conn = Connection::open(&case.db).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'invoices'";
    let root: u64 = conn.query_row(root, [], |row| row.get::<_, i64>(0)).unwrap() as u64;
    drop(conn);
    garble_leaves_in_the_middle(&case.db, root);
    let served = Served::start(&case.db, &[]);
    let client = Stub::new(&served.addr.to_string());
    upload(&client, "c", ROWS, None).unwrap();
    let export = || {
        let mut rows = client.export_invoices(&ExportRequest::new(), options()).unwrap();
        block_on(async {
            while rows.try_next().await?.is_some() {}
            Ok(())
        })
    };
    let found: grpcio::Result<()> = export();
    assert_eq!(code(&found.unwrap_err()), Some(RpcStatusCode::INTERNAL));
    for i in 0..3 {
        let next = upload(&client, &format!("d{i}"), ROWS, None).unwrap_err();
        assert_eq!(code(&next), Some(RpcStatusCode::UNAVAILABLE), "{next}");
    }
    // Reads go on as they can.
    let summary = client.get_summary(&SummaryRequest::new(), options()).unwrap();
    assert_eq!(summary.invoice_count as usize, 5000 + 2 * ROWS);
    assert_eq!(code(&export().unwrap_err()), Some(RpcStatusCode::INTERNAL));
}

/// Three children in the middle of a b-tree's root, which has one level below it.
pub fn garble_leaves_in_the_middle(db: &Path, root: u64) {
    let bytes = fs::read(db).unwrap();
    let page = &bytes[(root as usize - 1) * 4096..][..4096];
    assert_eq!(page[0], 5, "an interior page of a table");
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let cells = u16_at(3);
    for i in cells / 2..cells / 2 + 3 {
        let cell = u16_at(12 + 2 * i);
        let child = u32::from_be_bytes(page[cell..cell + 4].try_into().unwrap());
        garble(db, (u64::from(child) - 1) * 4096);
    }
}

#[test]
fn one_file_has_one_server_whatever_its_names() {
    let mut case = Case::new();
    let link = case.path("link.db");
    std::os::unix::fs::symlink(&case.db, &link).unwrap();
    assert!(refusal(&link).contains("another server is serving it"));
    // Without the lock file too.
    fs::remove_file(case.path("bills.db-lock")).unwrap();
    assert!(refusal(&link).contains("another server is serving it"));
    case.kill();
    let second = case.path("second.db");
    fs::hard_link(&case.db, &second).unwrap();
    for db in [&case.db, &second] {
        let message = refusal(db);
        assert!(message.contains("it has 2 names (hard links)"), "{message}");
    }
    fs::remove_file(second).unwrap();
    Served::start(&case.db, &[]).stop();
}

/// The log of a file that is mounted by itself would be in another place than the file's own.
#[test]
fn a_file_that_is_mounted_by_itself_is_refused() {
    let mut case = Case::new();
    case.stop();
    let point = case.path("a mount.db");
    File::create(&point).unwrap();
    let mount = Command::new("mount").arg("--bind").args([&case.db, &point]).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return skip("nothing can be mounted");
    }
    let message = std::panic::catch_unwind(|| refusal(&point));
    assert!(Command::new("umount").arg("--lazy").arg(&point).status().unwrap().success());
    let message = message.unwrap();
    assert!(message.contains("it is mounted by itself"), "{message}");
}

#[test]
fn a_file_that_was_cut_to_nothing_is_no_new_database() {
    let mut case = Case::new();
    case.fill_log();
    case.kill();
    cut(&case.db, 0);
    let message = refusal(&case.db);
    assert!(message.contains("its log"), "{message}");
    fs::remove_file(&case.db).unwrap();
    let message = refusal(&case.db);
    assert!(message.contains("its log"), "{message}");
    fs::remove_file(case.log()).unwrap();
    File::create(&case.db).unwrap();
    let message = refusal(&case.db);
    assert!(message.contains("it was cut to nothing"), "{message}");
    // A new one it is where nothing tells of an old one.
    fs::remove_file(case.path("bills.db-lock")).unwrap();
    Served::start(&case.db, &[]).stop();
}

#[test]
fn a_failed_start_leaves_no_files_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    let fails = || {
        let serve =
            billstream().args(["serve", "--listen", &port, "--db"]).arg(&db).output().unwrap();
        assert_eq!(serve.status.code(), Some(1), "{serve:?}");
    };
    fails();
    assert_eq!(names(dir.path()), [""; 0]);
    File::create(&db).unwrap();
    fails();
    assert_eq!(names(dir.path()), ["bills.db"]);
    assert_eq!(db.metadata().unwrap().len(), 0);
    Served::start(&db, &[]).stop();
    fs::remove_file(dir.path().join("bills.db-lock")).unwrap();
    fails();
    assert_eq!(names(dir.path()), ["bills.db"]);
    assert_sound(&open(&db));
}

/// Everything is in the file when the server has had nothing to write for a while.
#[test]
fn a_copy_of_the_file_of_an_idle_server_is_whole() {
    let case = Case::new();
    wait_for("the log is empty", || case.log().metadata().unwrap().len() == 0);
    let copy = case.path("copy.db");
    fs::copy(&case.db, &copy).unwrap();
    let conn = open(&copy);
    assert_sound(&conn);
    assert_eq!(rows_by_customer(&conn)["a"], ROWS);
}

/// A file of schema version 1, as an old backup is.
pub fn version_1(path: &Path) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(include_str!("../../sql/migrations/0001_initial.sql")).unwrap();
    conn.pragma_update(None, "application_id", i32::from_be_bytes(*b"bill")).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
}

/// By each way to make one, and with the log of its time or of a later one.
#[test]
fn a_copy_over_the_file_of_a_killed_server_is_refused() {
    for (copy, is_idle) in ["backup", "backup.of.shell", "cp", "version 1", "another"]
        .iter()
        .zip([false, true].into_iter().cycle())
    {
        let mut case = Case::new();
        let path = case.path("copy.db");
        let idle = || wait_for("the log is empty", || case.log().metadata().unwrap().len() == 0);
        match *copy {
            "backup" => backup(&case.db, &path),
            "backup.of.shell" => {
                let vacuum = format!("VACUUM INTO '{}'", path.display());
                Connection::open(&case.db).unwrap().execute_batch(&vacuum).unwrap();
            }
            "cp" => {
                idle();
                fs::copy(&case.db, &path).unwrap();
                // Of the state before: the very state that the log continues is no fault.
                case.fill_log();
                idle();
            }
            "version 1" => version_1(&path),
            _ => {
                let mut other = Case::new();
                other.stop();
                fs::copy(&other.db, &path).unwrap();
            }
        }
        if is_idle {
            idle();
        }
        case.fill_log();
        case.kill();
        fs::copy(&path, &case.db).unwrap();
        let before = (names(case.dir.path()), fs::read(&case.db).unwrap());
        let message = refusal(&case.db);
        assert!(message.contains("is not of this file"), "{copy}: {message}");
        let check = billstream().args(["check", "--db"]).arg(&case.db).output().unwrap();
        assert_eq!(check.status.code(), Some(1), "{copy}: {check:?}");
        assert!(before == (names(case.dir.path()), fs::read(&case.db).unwrap()), "{copy}");
        // What the message says works.
        fs::rename(case.log(), case.path("old-log")).unwrap();
        Served::start(&case.db, &[]).stop();
        assert_sound(&open(&case.db));
    }
}
