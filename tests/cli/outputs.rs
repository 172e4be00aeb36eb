//! Where output goes that nobody takes: a pipe whose reader left, a full disk, a closed descriptor. No
//! command panics for it, and exit codes tell the truth.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::support::*;

/// A place that takes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    /// A pipe whose reader has left.
    Left,
    /// A disk without room.
    Full,
}

impl Broken {
    fn stdio(self) -> Stdio {
        match self {
            Broken::Left => std::io::pipe().unwrap().1.into(),
            Broken::Full => File::options().write(true).open("/dev/full").unwrap().into(),
        }
    }
}

/// A way to run every command that ends by itself, and whether a reader that leaves is no failure of it.
fn commands(server: &Server) -> Vec<(Vec<String>, bool)> {
    let csv = server.file(
        "in.csv",
        &THREE.replace("\na,", "\nx,").replace("\nb,", "\ny,").replace("\nc,", "\nz,"),
    );
    let events = server.file("events.csv", &format!("{EVENTS}e1,a,1,USD,2023-01-01T00:00:00Z,\n"));
    let db = text_of(&server.path("bills.db"));
    let addr = &server.addr[..];
    let commands: &[(&[&str], bool)] = &[
        (&["--help"], true),
        (&["serve", "--help"], true),
        (&["--version"], true),
        (&["generate", "--rows", "10"], true),
        (&["list", "--addr", addr], true),
        (&["export", "--addr", addr], true),
        (&["export", "--addr", addr, "--format", "table"], true),
        (&["export", "--events", "--addr", addr], true),
        (&["show", "a", "--addr", addr], true),
        (&["summary", "--addr", addr], false),
        (&["summary", "--addr", addr, "--format", "csv"], false),
        (&["check", "--db", &db], false),
        (&["reconcile", &events, "--addr", addr], false),
        (&["reconcile", &events, "--addr", addr, "--format", "ndjson"], false),
        (&["reconcile", &events, "--addr", addr, "--format", "table"], false),
        (&["import", &csv, "--addr", addr, "--batch-id", "b"], false),
    ];
    let owned = |args: &[&str]| args.iter().map(|arg| arg.to_string()).collect();
    commands.iter().map(|&(args, may_leave)| (owned(args), may_leave)).collect()
}

fn command(args: &[String]) -> Command {
    billstream(&args.iter().map(|arg| &arg[..]).collect::<Vec<_>>())
}

#[test]
fn a_stdout_that_takes_nothing_is_said_and_ends_no_command_in_a_panic() {
    let server = Server::with_three();
    for (args, may_leave) in commands(&server) {
        for broken in [Broken::Left, Broken::Full] {
            let mut command = command(&args);
            let output = Process::start_with(command.stdout(broken.stdio())).output();
            let quiet = broken == Broken::Left && may_leave;
            assert_eq!(output.code, i32::from(!quiet), "{args:?} {broken:?}: {output:?}");
            assert_eq!(
                output.stderr.contains("error: stdout"),
                !quiet,
                "{args:?} {broken:?}: {output:?}"
            );
        }
    }
    // What they were asked to do is done all the same.
    let paid = server.run(&["list", "--format", "csv", "--columns", "invoice_id,paid_cents"]).ok();
    assert_eq!(paid, "invoice_id,paid_cents\na,1\nb,0\nc,0\nx,0\ny,0\nz,0\n");
}

#[test]
fn a_parquet_of_which_nothing_is_taken_is_said() {
    let server = Server::with_three();
    for broken in [Broken::Left, Broken::Full] {
        let mut export = billstream(&at(&["export", "--format", "parquet"], &server.addr));
        let output = Process::start_with(export.stdout(broken.stdio())).output();
        assert_eq!(output.code, i32::from(broken == Broken::Full), "{broken:?}: {output:?}");
        assert_eq!(output.stderr.contains("error: stdout: No space"), broken == Broken::Full);
    }
}

#[test]
fn a_stderr_that_takes_nothing_changes_no_result() {
    let server = Server::with_three();
    let copy = text_of(&server.path("copy.db"));
    let db = text_of(&server.path("bills.db"));
    let backup = ["backup", "--db", &db, &copy].map(str::to_owned).to_vec();
    let absent = ["import", "absent.csv"].map(str::to_owned).to_vec();
    let refused =
        ["summary", "--addr", "127.0.0.1:1", "--retry-for-secs", "1"].map(str::to_owned).to_vec();
    let wrong = ["exprot".to_owned()].to_vec();
    let mut commands = commands(&server);
    commands.push((backup, true));
    for broken in [Broken::Left, Broken::Full] {
        let _ = std::fs::remove_file(&copy);
        for (args, code) in commands.iter().map(|(args, _)| (args, 0)).chain([
            (&absent, 2),
            (&refused, 1),
            (&wrong, 2),
        ]) {
            let usual = Process::start(command(args)).output();
            if args[0] == "backup" {
                std::fs::remove_file(&copy).unwrap();
            }
            let output = Process::start_with(command(args).stderr(broken.stdio())).output();
            assert_eq!(output.code, code, "{args:?} {broken:?}: {output:?}, usually {usual:?}");
            // A second time the first two know what they did, and `check` tells the room of the disk.
            if !matches!(&args[0][..], "import" | "reconcile" | "check") {
                assert_eq!(output.stdout, usual.stdout, "{args:?} {broken:?}");
            }
        }
    }
}

#[test]
fn closed_descriptors_end_no_command_in_a_panic() {
    let server = Server::with_three();
    for (args, _) in commands(&server) {
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let mut shell = program("sh");
            shell.args([
                "-c",
                &format!("exec \"$0\" \"$@\" {closed}"),
                env!("CARGO_BIN_EXE_billstream"),
            ]);
            shell.args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
            let output = Process::start(shell).output();
            assert_eq!(output.code, 0, "{args:?} {closed}: {output:?}");
        }
    }
}

#[test]
fn a_server_whose_stdout_takes_nothing_does_not_serve() {
    for broken in [Broken::Left, Broken::Full] {
        let dir = tempfile::tempdir().unwrap();
        let db = text_of(&dir.path().join("bills.db"));
        let mut serve = billstream(&["serve", "--db", &db, "--listen", "127.0.0.1:0"]);
        Process::start_with(serve.stdout(broken.stdio())).output().fails(1, "error: stdout");
    }
}

#[test]
fn a_server_whose_stderr_takes_nothing_serves_and_stops() {
    for broken in [Broken::Left, Broken::Full] {
        let dir = tempfile::tempdir().unwrap();
        let db = text_of(&dir.path().join("bills.db"));
        let mut serve = billstream(&["serve", "--db", &db, "--listen", "127.0.0.1:0"]);
        let mut process =
            Process::start_with(serve.env("RUST_LOG", "trace").stderr(broken.stdio()));
        let line = process.lines().recv_timeout(DEADLINE).unwrap();
        let addr = line.strip_prefix("listening on ").unwrap();
        run_with_stdin(&at(&["import", "-"], addr), THREE).ok();
        process.signal("TERM");
        assert_eq!(process.wait(), 0, "{broken:?}");
    }
}

#[test]
fn a_reconcile_whose_reader_leaves_applies_every_payment_and_says_so() {
    const PAYMENTS: usize = 5000;
    let server = Server::with_three();
    let events: String = (0..PAYMENTS).map(|i| event_row(i, "a")).collect();
    let file = server.file("events.csv", &format!("{EVENTS}{events}"));
    for format in ["csv", "ndjson", "table"] {
        let mut process = Process::start(billstream(&at(
            &["reconcile", &file, "--format", format],
            &server.addr,
        )));
        let mut stdout = BufReader::new(process.child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let output = process.output();
        assert!(output.stderr.contains(&format!("{PAYMENTS} events: ")), "{output:?}");
        assert!(output.stderr.contains("the payments go on"), "{output:?}");
        output.fails(1, "error: stdout was closed before all of it was written");
        let paid = server
            .run(&["list", "--limit", "1", "--format", "csv", "--columns", "paid_cents"])
            .ok();
        assert_eq!(paid, format!("paid_cents\n{PAYMENTS}\n"));
    }
}
