//! `--db`: the commands on a file, without a server.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempfile::TempDir;

use super::reconcile::Reconcile;
use super::support::*;

/// Ended by the signal, as a shell wants to see it.
const INTERRUPTED: i32 = -2;

/// Enough rows to be in the middle of something.
const MANY: u64 = 50_000;

/// The commands that change or make nothing but rows.
const OF_A_FILE: [&[&str]; 4] = [&["summary"], &["list"], &["export"], &["reconcile", "/dev/null"]];

/// A directory with a database that no server has.
struct Dir {
    dir: TempDir,
    db: String,
}

impl Dir {
    fn new() -> Dir {
        let dir = tempfile::tempdir().unwrap();
        let db = text_of(&dir.path().join("bills.db"));
        Dir { dir, db }
    }

    /// With made-up invoices, as a csv too.
    fn with(rows: u64) -> (Dir, String) {
        let (dir, csv) = (Dir::new(), generate(rows));
        dir.run(&["import", &dir.file("g.csv", &csv)]).ok();
        (dir, csv)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        text_of(&path)
    }

    fn on<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [args, &["--db", &self.db]].concat()
    }

    fn start(&self, args: &[&str]) -> Process {
        Process::start(billstream(&self.on(args)))
    }

    fn run(&self, args: &[&str]) -> Output {
        self.start(args).output()
    }

    fn summary(&self) -> String {
        self.run(&["summary", "--format", "ndjson"]).ok()
    }

    fn wal(&self) -> String {
        format!("{}-wal", self.db)
    }

    /// The database is a file with nothing of a process beside it.
    #[track_caller]
    fn assert_closed(&self) {
        assert!(Path::new(&self.db).exists());
        assert!(!Path::new(&self.wal()).exists(), "its log is there");
        assert!(!Path::new(&format!("{}-shm", self.db)).exists());
    }

    /// Names and contents of all files.
    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(self.dir.path()).unwrap().map(|file| file.unwrap().path());
        let mut all: Vec<_> =
            files.map(|path| (text_of(&path), fs::read(&path).unwrap())).collect();
        all.sort();
        all
    }
}

#[test]
fn a_file_gives_what_a_server_gives() {
    let (server, dir) = (Server::start(), Dir::new());
    let none = dir.file("none.csv", HEADER);
    let three = dir.file("three.csv", THREE);
    let wrong = dir.file("wrong.csv", &THREE.replace("EUR", "eur"));
    let unknown = event_row(2, "nowhere");
    let events = dir.file("events.csv", &format!("{EVENTS}{}{unknown}", event_row(1, "a")));
    let import: &[&str] = &["import", &three, "--batch-id", "b"];
    let commands: &[&[&str]] = &[
        &["import", &none, "--batch-id", "none"],
        &["export"],
        import,
        &["import", &three],
        &["import", &wrong],
        &["import", &three, "--batch-id", ""],
        &["summary"],
        &["summary", "--customer", "anna"],
        &["list"],
        &["list", "--limit", "2", "--page-size", "1"],
        &["export"],
        &["export", "--max-rows", "1", "--after-sequence", "1"],
        &["reconcile", &events],
        &["reconcile", &dir.file("cut.csv", &EVENTS[..10])],
        &["show", "a"],
        &["show", "none"],
        &["export", "--events"],
        &["export", "--columns", "all"],
    ];
    for format in ["csv", "ndjson", "table"] {
        for &command in commands {
            let command = [command, &["--format", format]].concat();
            let (expected, output) = (server.run(&command), dir.run(&command));
            let of = |output: &Output| {
                let said = output.stderr.lines();
                // One that was made up is another one each time.
                let said = said.filter(|line| !line.starts_with("batch id "));
                (output.code, output.stdout.clone(), said.collect::<String>())
            };
            assert_eq!(of(&output), of(&expected), "{command:?}");
            dir.assert_closed();
        }
    }
    assert_eq!(dir.run(&["export"]).ok(), THREE);
    assert!(dir.summary().contains("\"paid_cents\":1,"), "{}", dir.summary());
}

#[test]
fn a_file_that_a_server_has_is_refused_with_the_address_to_use() {
    let dir = Dir::new();
    let socket = format!("unix:{}", text_of(&dir.dir.path().join("bills.sock")));
    let mut serve = dir.start(&["serve", "--listen", &socket]);
    let line = serve.lines().recv_timeout(DEADLINE).unwrap();
    assert_eq!(line, format!("listening on {socket}"));
    let three = dir.file("three.csv", THREE);
    let import: &[&str] = &["import", &three];
    for args in OF_A_FILE.iter().chain([&import]) {
        let refused = dir.run(args);
        assert_eq!(refused.stdout, "", "{args:?}");
        assert!(!refused.stderr.contains("trying again"), "{refused:?}");
        let message = format!("is serving it on {socket}: use --addr {socket}\n");
        refused.fails(1, &message);
    }
    // So it is done, and the server was not disturbed.
    run(&at(import, &socket)).ok();
    assert_eq!(run(&at(&["export"], &socket)).ok(), THREE);
    serve.signal("TERM");
    assert_eq!(serve.wait(), 0);
    assert_eq!(dir.run(&["export"]).ok(), THREE);
}

#[test]
fn a_file_that_another_command_has_is_refused() {
    let (dir, _) = Dir::with(1);
    let first = Reconcile::start_on(&["--db", &dir.db]);
    dir.run(&["summary"]).fails(1, "another server is serving it, or a client has it open\n");
    assert_eq!(first.end().0, 0);
    dir.run(&["summary"]).ok();
}

#[test]
fn a_file_that_is_not_there_is_made_by_import_alone() {
    let dir = Dir::new();
    for args in OF_A_FILE {
        let absent = dir.run(args);
        assert_eq!(absent.stdout, "", "{args:?}");
        absent.fails(2, &format!("--db {}: No such file", dir.db));
    }
    dir.run(&["import", "nowhere.csv"]).fails(2, "nowhere.csv: No such file");
    assert_eq!(dir.contents(), []);
    dir.run(&["import", &dir.file("three.csv", THREE)]).ok();
    assert_eq!(dir.run(&["export"]).ok(), THREE);
}

#[test]
fn a_file_of_something_else_is_refused_as_check_does_and_stays_as_it_is() {
    let dir = Dir::new();
    let three = dir.file("three.csv", THREE);
    let make_text = || fs::write(&dir.db, "invoices: none\n").unwrap();
    let make_other =
        || Connection::open(&dir.db).unwrap().execute_batch("create table t (a)").unwrap();
    let makes: [&dyn Fn(); 2] = [&make_text, &make_other];
    for make in makes {
        let _ = fs::remove_file(&dir.db);
        make();
        let before = dir.contents();
        let check = dir.run(&["check"]);
        let said = check.stderr.lines().last().unwrap().to_owned();
        for args in OF_A_FILE.iter().copied().chain([&["import", &three][..]]) {
            dir.run(args).fails(check.code, &said);
            assert!(dir.contents() == before, "{args:?}");
        }
    }
    fs::write(&dir.db, "").unwrap();
    let before = dir.contents();
    for args in OF_A_FILE {
        dir.run(args).fails(1, "the file is empty");
    }
    assert!(dir.contents() == before);
}

#[test]
fn a_file_and_a_server_are_not_both_asked_for() {
    let (dir, csv) = Dir::with(1);
    for (more, name) in
        [(&["--addr", "127.0.0.1:1"][..], "--addr <ADDRESS>"), (&["--http-proxy"], "--http-proxy")]
    {
        let args = [&["export"], more].concat();
        dir.run(&args).fails(2, &format!("'--db <FILE>' cannot be used with '{name}'"));
    }
    let mut export = billstream(&dir.on(&["export"]));
    export.env("BILLSTREAM_ADDR", "127.0.0.1:1").env("BILLSTREAM_HTTP_PROXY", "1");
    assert_eq!(Process::start(export).output().ok(), csv);
}

#[test]
fn a_file_is_closed_also_when_nobody_takes_what_is_printed() {
    let (dir, _) = Dir::with(MANY);
    let events: String = (0..5000).map(|i| event_row(i, "nowhere")).collect();
    let events = dir.file("events.csv", &format!("{EVENTS}{events}"));
    for (args, code) in [(&["export"][..], 0), (&["list"], 0), (&["reconcile", &events], 1)] {
        let mut process = dir.start(args);
        let mut stdout = BufReader::new(process.child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        assert_eq!(process.wait(), code, "{args:?}");
        dir.assert_closed();
    }
}

#[test]
fn an_interrupted_export_or_reconcile_closes_the_file() {
    let (dir, csv) = Dir::with(MANY);
    let mut export = dir.start(&["export"]);
    let mut stdout = BufReader::new(export.child.stdout.take().unwrap());
    let mut printed = String::new();
    stdout.read_line(&mut printed).unwrap();
    export.signal("INT");
    stdout.read_to_string(&mut printed).unwrap();
    assert_eq!(export.wait(), INTERRUPTED);
    dir.assert_closed();
    let said = export.stderr();
    let cursor = said.trim_end().rsplit(' ').next().unwrap();
    let rest = dir.run(&["export", "--after-sequence", cursor]).ok();
    assert!(printed + rest.split_once('\n').unwrap().1 == csv, "then from {cursor}");

    let mut reconcile = Reconcile::start_on(&["--db", &dir.db]);
    reconcile.pay("e1", "nowhere", 10);
    reconcile.ack();
    reconcile.process.signal("INT");
    assert_eq!(reconcile.process.wait(), INTERRUPTED);
    let said = reconcile.process.stderr();
    assert!(said.contains("interrupted: the payments up to \"e1\" are acknowledged"), "{said}");
    dir.assert_closed();
}

#[test]
fn an_import_waits_for_another_program_that_writes_and_is_interrupted_there() {
    let dir = Dir::new();
    dir.run(&["import", &dir.file("none.csv", HEADER)]).ok();
    let three = dir.file("three.csv", THREE);
    let other = Connection::open(&dir.db).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let locked = "UNAVAILABLE: the database is locked by another process";
    dir.run(&["import", &three, "--retry-for-secs", "0"]).fails(1, locked);
    let mut import = dir.start(&["import", &three]);
    import.says(&format!("{locked}; trying again in "));
    import.signal("INT");
    assert_eq!(import.wait(), INTERRUPTED);
    assert!(dir.summary().starts_with("{\"invoice_count\":0,"));
    let import = dir.start(&["import", &three]);
    import.says(&format!("{locked}; trying again in "));
    other.execute_batch("rollback").unwrap();
    drop(other);
    import.output().ok();
    assert_eq!(dir.run(&["export"]).ok(), THREE);
    dir.assert_closed();
}

#[test]
fn an_import_that_is_interrupted_at_work_creates_nothing() {
    let (dir, csv) = (Dir::new(), generate(4 * MANY));
    let args = ["import", &dir.file("g.csv", &csv), "--format", "ndjson"];
    let mut import = dir.start(&args);
    // The file is open, and no row is read.
    import.says("batch id ");
    import.signal("INT");
    assert_eq!(import.wait(), INTERRUPTED);
    dir.assert_closed();
    assert!(dir.summary().starts_with("{\"invoice_count\":0,"));
    let said = import.stderr();
    let go_on = said.lines().find(|line| line.starts_with("interrupted: ")).expect(&said);
    let id = go_on.split_once("--batch-id ").unwrap().1.split(',').next().unwrap();
    dir.assert_repeated(&[&args[..], &["--batch-id", id]].concat(), &csv);
}

#[test]
fn an_import_that_is_killed_in_the_middle_leaves_a_sound_file_and_is_repeated() {
    let (dir, csv) = (Dir::new(), generate(4 * MANY));
    let args = ["import", &dir.file("g.csv", &csv), "--batch-id", "b", "--format", "ndjson"];
    let mut import = dir.start(&args);
    // It is past the reading of the file.
    dir.wait_for_log(&mut import, 1 << 20);
    import.signal("KILL");
    assert_eq!(import.wait(), -9);
    dir.run(&["check"]).ok();
    let summary = dir.summary();
    let all_or_none = [0, 4 * MANY].map(|count| format!("{{\"invoice_count\":{count},"));
    assert!(all_or_none.iter().any(|count| summary.starts_with(count)), "{summary}");
    dir.assert_repeated(&args, &csv);
}

impl Dir {
    /// Waits until the log of the database, which `process` writes, has so many bytes.
    fn wait_for_log(&self, process: &mut Process, bytes: u64) {
        let start = Instant::now();
        while fs::metadata(self.wal()).map_or(0, |log| log.len()) < bytes {
            assert!(process.child.try_wait().unwrap().is_none(), "{}", process.stderr());
            assert!(start.elapsed() < DEADLINE, "the log does not grow");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// An import with a batch id is done once, however often it is begun.
    fn assert_repeated(&self, args: &[&str], csv: &str) {
        let rows = csv.lines().count() - 1;
        for _ in 0..2 {
            let again = self.run(args).ok();
            assert!(again.starts_with(&format!("{{\"created_count\":{rows},")), "{again}");
            self.assert_closed();
        }
        assert!(self.run(&["export"]).ok() == csv, "export differs");
    }
}
