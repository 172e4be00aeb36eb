//! The command line, as a user has it: the built binary, real files, real connections.
//!
//! Every wait has a deadline, and every process ends with its test. Faults are put between client
//! and server by [`Proxy`], whose gates say when: nothing is timed by sleeping.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(120);

const HEADER: &str = "invoice_id,customer_id,total_amount_cents,currency,issued_at,memo\n";
const THREE: &str = "\
invoice_id,customer_id,total_amount_cents,currency,issued_at,memo
a,anna,1000,USD,2020-01-01T00:00:00Z,
b,bert,2000,USD,2021-01-01T00:00:00.5Z,\"two, with \"\"quotes\"\"\"
c,anna,3000,EUR,2022-01-01T00:00:00Z,Zürich
";

// ---- processes -----------------------------------------------------------------------------

/// The binary, with nothing of the caller's environment that it would take for settings.
fn billstream(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_billstream"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BILLSTREAM_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that does not outlive its test.
struct Process {
    child: Child,
    stderr: Receiver<String>,
}

impl Process {
    fn start(mut command: Command) -> Process {
        let mut child = command.spawn().expect("the binary starts");
        let stderr = collect(child.stderr.take().unwrap());
        Process { child, stderr }
    }

    /// The lines of stdout as they come.
    fn lines(&mut self) -> Receiver<String> {
        let (sender, lines) = channel();
        let stdout = BufReader::new(self.child.stdout.take().unwrap());
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        lines
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < DEADLINE, "the process does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end with all output.
    fn output(mut self) -> Output {
        let stdout = self.child.stdout.take().map(collect);
        let code = self.wait();
        let text =
            |lines: &Receiver<String>| lines.recv_timeout(DEADLINE).expect("the output ends");
        Output {
            code,
            stdout: stdout.as_ref().map(text).unwrap_or_default(),
            stderr: text(&self.stderr),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, text) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8(bytes).expect("UTF-8"));
    });
    text
}

#[derive(Debug)]
struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Output {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    #[track_caller]
    fn fails(self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(message), "no {message:?} in {self:?}");
    }
}

fn run(args: &[&str]) -> Output {
    Process::start(billstream(args)).output()
}

/// Runs with `input` on stdin.
fn run_with_stdin(args: &[&str], input: &str) -> Output {
    let mut command = billstream(args);
    command.stdin(Stdio::piped());
    let mut process = Process::start(command);
    let mut stdin = process.child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that fails early leaves its input.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    process.output()
}

/// A running server, its database in a directory of its own.
struct Server {
    process: Process,
    addr: String,
    dir: TempDir,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let (process, addr) = serve(&dir.path().join("bills.db"));
        Server { process, addr, dir }
    }

    /// A server with the invoices of [`THREE`].
    fn with_three() -> Server {
        let server = Server::start();
        let file = server.file("three.csv", THREE);
        server.run(&["import", &file]).ok();
        server
    }

    /// Kills the server as a power cut would, and serves the same database again.
    fn kill_and_restart(&mut self) {
        self.process.signal("KILL");
        self.process.wait();
        (self.process, self.addr) = serve(&self.path("bills.db"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        text_of(&self.path(name))
    }

    fn run(&self, args: &[&str]) -> Output {
        run(&at(args, &self.addr))
    }

    fn summary(&self) -> String {
        self.run(&["summary", "--format", "ndjson"]).ok()
    }
}

fn at<'a>(args: &[&'a str], addr: &'a str) -> Vec<&'a str> {
    [args, &["--addr", addr]].concat()
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn serve(db: &Path) -> (Process, String) {
    let mut process =
        Process::start(billstream(&["serve", "--db", &text_of(db), "--listen", "127.0.0.1:0"]));
    let line = process.lines().recv_timeout(DEADLINE).expect("the server starts");
    let addr = line.strip_prefix("listening on ").expect("the promised line").to_owned();
    (process, addr)
}

/// The real data set, where it is.
fn cdnow() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/cdnow.csv");
    if path.exists() {
        return Some(text_of(&path));
    }
    println!("skipped: there is no {}", path.display());
    None
}

// ---- a connection that fails on purpose ----------------------------------------------------

/// Forwards connections to a server that may change, and stops the bytes of one direction at a
/// gate until the test has done what it wants to be done meanwhile.
struct Proxy {
    addr: String,
    state: Arc<ProxyState>,
}

struct ProxyState {
    server: Mutex<SocketAddr>,
    open: Mutex<Vec<TcpStream>>,
    up: Gate,
    down: Gate,
}

/// Lets `allowance` bytes through and then holds up the rest.
struct Gate {
    allowance: Mutex<u64>,
    changed: Condvar,
}

impl Gate {
    fn new(allowance: u64) -> Gate {
        Gate { allowance: Mutex::new(allowance), changed: Condvar::new() }
    }

    fn pass(&self, bytes: u64) {
        let allowance = self.allowance.lock().unwrap();
        let mut allowance =
            self.changed.wait_while(allowance, |allowance| *allowance == 0).unwrap();
        *allowance = allowance.saturating_sub(bytes);
        self.changed.notify_all();
    }

    fn wait_until_shut(&self) {
        let allowance = self.allowance.lock().unwrap();
        let (allowance, _) = self
            .changed
            .wait_timeout_while(allowance, DEADLINE, |allowance| *allowance > 0)
            .unwrap();
        assert_eq!(*allowance, 0, "too few bytes came");
    }

    fn open(&self) {
        *self.allowance.lock().unwrap() = u64::MAX;
        self.changed.notify_all();
    }
}

impl Proxy {
    /// A proxy that lets so many bytes go up to the server and down from it.
    fn start(server: &Server, up: u64, down: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let state = Arc::new(ProxyState {
            server: Mutex::new(server.addr.parse().unwrap()),
            open: Mutex::default(),
            up: Gate::new(up),
            down: Gate::new(down),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|client| shared.forward(client))
        });
        Proxy { addr, state }
    }

    /// Cuts every connection, and forwards new ones to `server` without a limit.
    fn cut_over_to(&self, server: &Server) {
        *self.state.server.lock().unwrap() = server.addr.parse().unwrap();
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.state.up.open();
        self.state.down.open();
    }
}

impl ProxyState {
    fn forward(self: &Arc<ProxyState>, client: TcpStream) {
        // Where there is no server the client sees its connection closed.
        let Ok(server) = TcpStream::connect(*self.server.lock().unwrap()) else { return };
        let copies = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        self.open.lock().unwrap().extend(copies);
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || pump(client, server, &up.up));
        thread::spawn(move || pump(ends.1, ends.0, &down.down));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        gate.pass(n as u64);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

// ---- serve, check, backup ------------------------------------------------------------------

#[test]
fn sigterm_and_sigint_end_the_server_with_code_0_and_nothing_is_lost() {
    let mut server = Server::with_three();
    let before = server.summary();
    for signal in ["TERM", "INT"] {
        server.process.signal(signal);
        assert_eq!(server.process.wait(), 0, "{signal}");
        (server.process, server.addr) = serve(&server.path("bills.db"));
        assert_eq!(server.summary(), before);
    }
}

#[test]
fn a_stop_is_bounded_with_a_stalled_export_open() {
    let dir = tempfile::tempdir().unwrap();
    let db = text_of(&dir.path().join("bills.db"));
    let args = ["serve", "--db", &db, "--listen", "127.0.0.1:0", "--drain-timeout-ms", "200"];
    let mut process = Process::start(billstream(&args));
    let line = process.lines().recv_timeout(DEADLINE).unwrap();
    let addr = line.strip_prefix("listening on ").unwrap();
    let csv = dir.path().join("many.csv");
    fs::write(&csv, generate(50_000)).unwrap();
    run(&at(&["import", &text_of(&csv)], addr)).ok();
    // One line is read and no more.
    let mut export = Process::start(billstream(&at(&["export", "--retry-for-secs", "0"], addr)));
    let mut stdout = BufReader::new(export.child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let start = Instant::now();
    process.signal("TERM");
    assert_eq!(process.wait(), 0);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let server = Server::start();
    let file = server.file("c.toml", "max_exports = 1\nmax_uploads = 1\nmax_page_size = 1\n");
    let db = text_of(&server.path("bills.db"));
    let mut command = billstream(&["check", "--db", &db, "--config", &file, "--max-exports", "3"]);
    command.env("BILLSTREAM_MAX_EXPORTS", "2").env("BILLSTREAM_MAX_UPLOADS", "2");
    let printed = Process::start(command).output().ok();
    for line in [
        "max_exports = 3  # --max-exports".to_owned(),
        "max_uploads = 2  # BILLSTREAM_MAX_UPLOADS".to_owned(),
        format!("max_page_size = 1  # {file}"),
        "max_reconciles = 1024  # default".to_owned(),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "no {line:?} in {printed}");
    }
}

#[test]
fn a_wrong_configuration_is_exit_code_2_and_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    let file = |text: &str| {
        fs::write(&config, text).unwrap();
        run(&["check", "--config", &text_of(&config)])
    };
    file("max_export = 9").fails(2, "c.toml: unknown setting \"max_export\"");
    file("max_exports = \"9\"")
        .fails(2, "max_exports = \"9\": expected a whole number, 1 to 100000");
    file("max_exports = ").fails(2, "c.toml: TOML parse error");
    file("synchronous = \"off\"").fails(2, "expected `full` or `normal`");
    run(&["serve", "--max-exports", "many"])
        .fails(2, "--max-exports \"many\": expected a whole number");
    run(&["serve", "--max-exports", "0"]).fails(2, "--max-exports: 0 is not in 1 to 100000");
    run(&["serve", "--config", "absent.toml"]).fails(2, "absent.toml: No such file");
    let mut command = billstream(&["serve"]);
    command.env("BILLSTREAM_MAX_UPLOADS", "-1");
    Process::start(command)
        .output()
        .fails(2, "BILLSTREAM_MAX_UPLOADS \"-1\": expected a whole number");
}

#[test]
fn a_server_that_cannot_start_says_why_with_exit_code_1() {
    let server = Server::with_three();
    let before = server.summary();
    let dir = text_of(server.dir.path());
    run(&["serve", "--db", &dir, "--listen", "127.0.0.1:0"]).fails(1, "directory");
    let other = text_of(&server.path("other.db"));
    run(&["serve", "--db", &other, "--listen", &server.addr]).fails(1, &server.addr);
    let same = text_of(&server.path("bills.db"));
    run(&["serve", "--db", &same, "--listen", "127.0.0.1:0"]).fails(1, "bills.db");
    let text = server.file("text.db", "this is no database, but a text of some length\n");
    run(&["serve", "--db", &text, "--listen", "127.0.0.1:0"]).fails(1, "text.db");
    assert_eq!(fs::read_to_string(&text).unwrap().len(), 47);
    run(&["serve", "--db", "/proc/nowhere/a.db", "--listen", "127.0.0.1:0"])
        .fails(1, "/proc/nowhere");
    assert_eq!(server.summary(), before);
}

#[test]
fn check_reports_a_sound_database_and_one_that_is_not() {
    let mut server = Server::with_three();
    let db = text_of(&server.path("bills.db"));
    let report = run(&["check", "--db", &db]).ok();
    assert!(report.contains("3 invoices, last sequence 3"), "{report}");
    server.process.signal("TERM");
    server.process.wait();
    let connection = rusqlite::Connection::open(&db).unwrap();
    connection.execute("UPDATE currency_totals SET total_cents = 1", []).unwrap();
    drop(connection);
    run(&["check", "--db", &db]).fails(1, "2 faults");
    run(&["check", "--db", &text_of(&server.path("absent.db"))]).fails(1, "absent.db");
    assert!(!server.path("absent.db").exists());
}

#[test]
fn a_backup_is_made_while_serving_and_serves_the_same() {
    let server = Server::with_three();
    let (db, copy) = (text_of(&server.path("bills.db")), text_of(&server.path("copy.db")));
    run(&["backup", "--db", &db, &copy]).ok();
    let (_process, addr) = serve(Path::new(&copy));
    let copied = run(&at(&["export", "--format", "ndjson"], &addr)).ok();
    assert_eq!(copied, server.run(&["export", "--format", "ndjson"]).ok());
    run(&["backup", "--db", &db, &copy]).fails(1, "copy.db exists");
}

// ---- the clients ---------------------------------------------------------------------------

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    run(&[]).fails(2, "Usage: billstream");
    run(&["exprot"]).fails(2, "unrecognized subcommand 'exprot'");
    run(&["summary", "--addr", "localhost"]).fails(2, "expected HOST:PORT");
    run(&["list", "--since", "yesterday"]).fails(2, "expected an RFC 3339 time");
    run(&["list", "--status", "paid,late"]).fails(2, "expected one of OPEN, PARTIALLY_PAID, PAID");
    run(&["list", "--page-size", "0"]).fails(2, "0 is not in 1..");
    run(&["export", "--columns", "memo,price"]).fails(2, "expected some of invoice_id,");
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
    run(&at(&["summary"], &addr)).fails(1, "UNAVAILABLE");
    run(&at(&["list"], &addr)).fails(1, "UNAVAILABLE");
    run(&at(&["export", "--retry-for-secs", "0"], &addr)).fails(1, "UNAVAILABLE");
    let give_up = run_with_stdin(&at(&["import", "-", "--retry-for-secs", "1"], &addr), THREE);
    give_up.fails(1, "trying again in 100 ms (giving up after 1 s)");
}

#[test]
fn the_real_purchases_come_out_as_they_went_in() {
    let Some(csv) = cdnow() else { return };
    let server = Server::start();
    let result = server.run(&["import", &csv, "--format", "ndjson", "--batch-id", "real"]).ok();
    let totals =
        "\"totals\":[{\"currency\":\"USD\",\"invoice_count\":69659,\"total_cents\":250031563,";
    assert!(result.starts_with("{\"created_count\":69659,\"first_sequence\":1,"), "{result}");
    assert!(result.contains(totals), "{result}");
    assert!(server.summary().contains(totals));
    let file = fs::read_to_string(&csv).unwrap();
    assert!(server.run(&["export"]).ok() == file, "export differs");
    assert!(server.run(&["export", "--batched"]).ok() == file, "export --batched differs");
    assert!(
        server.run(&["list", "--format", "csv", "--columns", COLUMNS]).ok() == file,
        "list differs"
    );
    let before = server.summary();
    let message = format!("{csv}:2: ALREADY_EXISTS");
    let again = server.run(&["import", &csv]);
    assert!(again.stderr.contains("\"cdnow-000001\" is taken"), "{}", again.stderr);
    again.fails(1, &message);
    assert_eq!(server.summary(), before);
}

const COLUMNS: &str = "invoice_id,customer_id,total_amount_cents,currency,issued_at,memo";

#[test]
fn an_export_can_be_imported_again_in_both_formats() {
    let server = Server::with_three();
    let ndjson = server.run(&["export", "--format", "ndjson"]).ok();
    let csv = server.run(&["export", "--columns", "all"]).ok();
    assert!(csv.starts_with(&format!("{COLUMNS},status,paid_cents,sequence\na,anna,1000,USD,")));
    for (format, text) in [("ndjson", &ndjson), ("csv", &csv)] {
        let other = Server::start();
        let file = other.file(&format!("three.{format}"), text);
        other.run(&["import", &file]).ok();
        assert_eq!(&other.run(&["export", "--format", "ndjson"]).ok(), &ndjson);
        assert_eq!(other.run(&["export"]).ok(), THREE);
    }
}

#[test]
fn a_batch_id_creates_once() {
    let server = Server::start();
    let import = |input: &str| {
        let args = ["import", "-", "--batch-id", "b1", "--format", "csv"];
        run_with_stdin(&at(&args, &server.addr), input).ok()
    };
    let first = import(THREE);
    let header = "created_count,first_sequence,last_sequence,batch_id,already_applied,currency,\
                  invoice_count,total_cents,paid_cents,outstanding_cents\n";
    assert_eq!(
        first,
        format!("{header}3,1,3,b1,false,EUR,1,3000,0,3000\n3,1,3,b1,false,USD,2,3000,0,3000\n")
    );
    assert_eq!(import(THREE), first.replace("false", "true"));
    let only_header = run_with_stdin(&at(&["import", "-"], &server.addr), HEADER).ok();
    assert!(only_header.starts_with("created_count    0\n"), "{only_header}");
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

#[test]
fn list_pages_through_every_invoice_once() {
    let server = Server::start();
    let csv = generate(100);
    let file = server.file("g.csv", &csv);
    server.run(&["import", &file]).ok();
    for page_size in ["1", "7", "100", "1000"] {
        let listed = server.run(&[
            "list",
            "--page-size",
            page_size,
            "--format",
            "csv",
            "--columns",
            COLUMNS,
        ]);
        assert_eq!(listed.ok(), csv, "pages of {page_size}");
    }
}

#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() {
    let server = Server::start();
    let file = server.file("g.csv", &generate(50_000));
    server.run(&["import", &file]).ok();
    for args in
        [&["export"][..], &["export", "--batched"], &["list"], &["generate", "--rows", "1000000"]]
    {
        let args = if args[0] == "generate" { args.to_vec() } else { at(args, &server.addr) };
        let mut process = Process::start(billstream(&args));
        let mut stdout = BufReader::new(process.child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let output = process.output();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn generate_gives_the_same_invoices_for_ever() {
    let expected = "\
invoice_id,customer_id,total_amount_cents,currency,issued_at,memo
inv-0000001,cust-00446,369,GBP,2024-05-21T21:59:06Z,4 × 東京 → 大阪
inv-0000002,cust-00102,1470,USD,2023-03-25T00:37:59Z,\"Parts 68170, 6 boxes, \"\"fragile\"\", déjà payé\"
inv-0000003,cust-00001,5,USD,2022-07-30T20:30:59Z,Period 2: consulting support travel training consulting support
";
    let csv = generate(10_000);
    assert!(csv.starts_with(expected), "{}", &csv[..400]);
    assert_eq!(fnv1a(csv.as_bytes()), 0x9bf4_5fd3_c60c_9959, "all of it");
}

fn generate(rows: u64) -> String {
    run(&["generate", "--rows", &rows.to_string(), "--seed", "1"]).ok()
}

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

// ---- bad input -----------------------------------------------------------------------------

#[test]
fn a_bad_input_is_named_by_line_and_column_and_changes_nothing() {
    let server = Server::with_three();
    let before = server.summary();
    let row = |row: &str| format!("{HEADER}x,anna,1,USD,2020-01-01T00:00:00Z,\n{row}\n");
    let long = "m".repeat(1025);
    let huge = "m".repeat(5 << 20);
    for (name, text, code, message) in [
        ("empty", String::new(), 2, ":1: the input is empty; expected a csv header"),
        ("not_csv", "\u{7f}ELF\u{2}\0\0\n\0\0".to_owned(), 2, ":1: unknown column \"\\u{7f}ELF"),
        ("no_currency", HEADER.replace("currency,", ""), 2, ":1: no column currency; expected the csv header"),
        ("typo", HEADER.replace("memo", "meme"), 2, ":1: unknown column \"meme\""),
        ("twice", HEADER.replace("memo", "currency"), 2, ":1: column currency twice"),
        ("date", row("y,anna,1,USD,2020-02-30T00:00:00Z,"), 2,
            ":3: column issued_at: \"2020-02-30T00:00:00Z\": expected an RFC 3339 time"),
        ("day", row("y,anna,1,USD,2020-02-03,"), 2, ":3: column issued_at: \"2020-02-03\": expected"),
        ("negative", row("y,anna,-5,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column total_amount_cents: \"-5\": expected 0 cents or more"),
        ("float", row("y,anna,1.50,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column total_amount_cents: \"1.50\": expected a whole number of cents"),
        ("overflow", row("y,anna,9223372036854775808,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column total_amount_cents: \"9223372036854775808\": expected a whole number of cents"),
        ("currency", row("y,anna,1,XXQ,2020-01-01T00:00:00Z,"), 2,
            ":3: column currency: \"XXQ\": expected an ISO 4217 code"),
        ("lower", row("y,anna,1,usd,2020-01-01T00:00:00Z,"), 2, ":3: column currency: \"usd\""),
        ("nobody", row("y,,1,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column customer_id: \"\": expected 1 to 128 bytes"),
        ("memo", row(&format!("y,anna,1,USD,2020-01-01T00:00:00Z,{long}")), 2,
            ":3: column memo: \"mmmmmmmmmm"),
        ("huge", row(&format!("y,anna,1,USD,2020-01-01T00:00:00Z,{huge}")), 2,
            ":3: a row of more than 1024 KiB"),
        ("duplicate", row("x,anna,1,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column invoice_id: \"x\": expected an id that is not on line 2 already"),
        ("taken", row("b,anna,1,USD,2020-01-01T00:00:00Z,"), 1, ":3: ALREADY_EXISTS: "),
        ("cut", row("y,anna,1,US").trim_end().to_owned(), 2, ":3: 4 fields; expected 6, as in the header: is the file cut?"),
        ("cut_quote", row("y,anna,1,USD,2020-01-01T00:00:00Z,\"a memo").trim_end().to_owned(), 2,
            ":3: a quoted field without its end: is the file cut?"),
        ("long_row", row("y,anna,1,USD,2020-01-01T00:00:00Z,,"), 2, ":3: 7 fields; expected 6"),
        ("cut_json", "{\"customer_id\":\"anna\",\"total_amount_cents\":1,\"curr".to_owned(), 2,
            ":1: JSON without its end"),
        ("json_type", "{\"customer_id\":true}".to_owned(), 2,
            ":1: column customer_id: \"true\": expected a string or a whole number"),
        ("json_key", "{\"customer\":\"anna\"}".to_owned(), 2, ":1: unknown column \"customer\""),
    ] {
        let file = server.file(name, &text);
        server.run(&["import", &file]).fails(code, &format!("{file}{message}"));
        assert_eq!(server.summary(), before, "{name}");
    }
}

#[test]
fn a_file_without_its_last_newline_is_whole() {
    let server = Server::start();
    let file = server.file("three.csv", THREE.trim_end());
    server.run(&["import", &file]).ok();
    assert_eq!(server.run(&["export"]).ok(), THREE);
}

// ---- reconcile -----------------------------------------------------------------------------

const EVENTS: &str = "event_id,invoice_id,amount_cents,currency,received_at,reference\n";

/// A reconcile whose input is a pipe that stays open.
struct Reconcile {
    process: Process,
    stdin: Option<ChildStdin>,
    acks: Receiver<String>,
}

impl Reconcile {
    fn start(addr: &str) -> Reconcile {
        let mut command = billstream(&at(&["reconcile", "-"], addr));
        command.stdin(Stdio::piped());
        let mut process = Process::start(command);
        let stdin = process.child.stdin.take();
        let acks = process.lines();
        let mut reconcile = Reconcile { process, stdin, acks };
        assert_eq!(
            reconcile.ack(),
            "event_id,outcome,invoice_status,outstanding_cents,duplicate,message"
        );
        reconcile.send(EVENTS);
        reconcile
    }

    fn send(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn pay(&mut self, event: &str, invoice: &str, cents: i64) {
        self.send(&format!("{event},{invoice},{cents},USD,2023-01-01T00:00:00Z,\n"));
    }

    fn ack(&mut self) -> String {
        self.acks.recv_timeout(DEADLINE).expect("an acknowledgement")
    }

    fn end(mut self) -> (i32, String) {
        drop(self.stdin.take());
        let code = self.process.wait();
        (code, self.process.stderr.recv_timeout(DEADLINE).unwrap())
    }
}

#[test]
fn acknowledgements_come_while_the_input_is_open() {
    let server = Server::with_three();
    let mut reconcile = Reconcile::start(&server.addr);
    for (event, invoice, cents, expected) in [
        ("e1", "a", 400, "e1,PARTIAL,PARTIALLY_PAID,600,false,"),
        ("e2", "a", 600, "e2,SETTLED,PAID,0,false,"),
        ("e1", "a", 400, "e1,PARTIAL,PARTIALLY_PAID,600,true,"),
        ("e3", "b", 2001, "e3,OVERPAID,OVERPAID,-1,false,"),
        ("e4", "z", 1, "e4,UNKNOWN_INVOICE,,0,false,"),
        ("e5", "c", 1, "e5,CURRENCY_MISMATCH,OPEN,3000,false,"),
        ("e6", "a", -1, "e6,REJECTED,"),
    ] {
        reconcile.pay(event, invoice, cents);
        let ack = reconcile.ack();
        assert!(ack.starts_with(expected), "{ack}, expected {expected}");
    }
    let (code, stderr) = reconcile.end();
    assert_eq!(code, 0, "{stderr}");
    let counts =
        "7 events: 2 PARTIAL, 1 SETTLED, 1 OVERPAID, 1 UNKNOWN_INVOICE, 1 CURRENCY_MISMATCH, \
                  1 REJECTED; 1 of them known before\n";
    assert_eq!(stderr, counts);
}

#[test]
fn a_bad_line_ends_a_reconcile_after_what_was_before_it() {
    let server = Server::with_three();
    let mut reconcile = Reconcile::start(&server.addr);
    reconcile.pay("e1", "a", 1000);
    reconcile.send("e2,a,ten,USD,2023-01-01T00:00:00Z,\ne3,b,1,USD,2023-01-01T00:00:00Z,\n");
    assert_eq!(reconcile.ack(), "e1,SETTLED,PAID,0,false,");
    let (code, stderr) = reconcile.end();
    assert_eq!(code, 2, "{stderr}");
    let message = "error: stdin:3: column amount_cents: \"ten\": expected a whole number of cents";
    assert!(stderr.contains(message), "{stderr}");
    let paid = server.run(&["list", "--format", "csv", "--columns", "paid_cents"]).ok();
    assert_eq!(paid, "paid_cents\n1000\n0\n0\n");
}

#[test]
fn ten_thousand_payments_are_acknowledged_in_order() {
    let server = Server::with_three();
    let events: String = (0..10_000).map(|i| event_row(i, "c")).collect();
    let file = server.file("events.csv", &format!("{EVENTS}{events}").replace("USD", "EUR"));
    let acks = server.run(&["reconcile", &file, "--format", "ndjson"]).ok();
    assert_eq!(acks.lines().count(), 10_000);
    for (i, ack) in acks.lines().enumerate() {
        assert!(ack.starts_with(&format!("{{\"event_id\":\"e{i}\",")), "{ack}");
    }
    assert!(acks.lines().nth(2999).unwrap().contains("\"SETTLED\""));
    assert!(server.summary().contains("\"paid_cents\":10000,\"outstanding_cents\":-7000"));
}

fn event_row(i: usize, invoice: &str) -> String {
    format!("e{i},{invoice},1,USD,2023-01-01T00:00:00Z,\n")
}

// ---- faults in the middle ------------------------------------------------------------------

/// Enough rows to be in the middle of something: about 4 MB.
const MANY: u64 = 50_000;

#[test]
fn an_import_survives_a_server_killed_in_the_middle() {
    let mut server = Server::start();
    let csv = generate(MANY);
    let file = server.file("g.csv", &csv);
    let proxy = Proxy::start(&server, 1 << 20, u64::MAX);
    let import =
        Process::start(billstream(&at(&["import", &file, "--format", "ndjson"], &proxy.addr)));
    proxy.state.up.wait_until_shut();
    server.kill_and_restart();
    assert!(server.summary().starts_with("{\"invoice_count\":0,"));
    proxy.cut_over_to(&server);
    let output = import.output();
    assert!(output.stderr.contains("trying again"), "{output:?}");
    let result = output.ok();
    assert!(result.starts_with(&format!("{{\"created_count\":{MANY},")), "{result}");
    assert!(result.contains("\"already_applied\":false"), "{result}");
    assert!(server.run(&["export"]).ok() == csv, "export differs");
}

#[test]
fn an_import_whose_answer_is_lost_creates_nothing_twice() {
    let server = Server::start();
    let file = server.file("three.csv", THREE);
    // Each gate lets the first bytes through, the handshake of the connection, and then shuts.
    let proxy = Proxy::start(&server, 1, 1);
    let import =
        Process::start(billstream(&at(&["import", &file, "--format", "ndjson"], &proxy.addr)));
    proxy.state.up.wait_until_shut();
    proxy.state.down.wait_until_shut();
    proxy.state.up.open();
    let start = Instant::now();
    while !server.summary().starts_with("{\"invoice_count\":3,") {
        assert!(start.elapsed() < DEADLINE, "the upload does not arrive");
    }
    proxy.cut_over_to(&server);
    let output = import.output();
    assert!(output.stderr.contains("trying again"), "{output:?}");
    let result = output.ok();
    assert!(result.starts_with("{\"created_count\":3,"), "{result}");
    assert!(result.contains("\"already_applied\":true"), "{result}");
    assert_eq!(server.run(&["export"]).ok(), THREE);
}

#[test]
fn an_export_survives_a_server_killed_in_the_middle() {
    let mut server = Server::start();
    let csv = generate(MANY);
    let file = server.file("g.csv", &csv);
    server.run(&["import", &file]).ok();
    let later = server.file("later.csv", THREE);
    for args in [&["export"][..], &["export", "--batched"]] {
        let proxy = Proxy::start(&server, u64::MAX, 1 << 20);
        let export = Process::start(billstream(&at(args, &proxy.addr)));
        proxy.state.down.wait_until_shut();
        server.kill_and_restart();
        // Invoices of a later time are not of this export.
        server.run(&["import", &later, "--batch-id", "later"]).ok();
        proxy.cut_over_to(&server);
        let output = export.output();
        assert!(output.stderr.contains("trying again"), "{args:?}: {}", output.stderr);
        let exported = output.ok();
        let expected = if args.len() == 1 { csv.clone() } else { server.run(&["export"]).ok() };
        assert!(exported == expected, "{args:?}: the export differs");
    }
}

#[test]
fn max_rows_counts_over_a_lost_connection() {
    let mut server = Server::start();
    let csv = generate(MANY);
    let file = server.file("g.csv", &csv);
    server.run(&["import", &file]).ok();
    let proxy = Proxy::start(&server, u64::MAX, 1 << 20);
    let export = Process::start(billstream(&at(&["export", "--max-rows", "49000"], &proxy.addr)));
    proxy.state.down.wait_until_shut();
    server.kill_and_restart();
    proxy.cut_over_to(&server);
    let exported = export.output().ok();
    assert_eq!(exported.lines().count(), 49_001);
    assert!(csv.starts_with(&exported));
}

#[test]
fn a_reconcile_survives_a_server_killed_in_the_middle() {
    let mut server = Server::with_three();
    let proxy = Proxy::start(&server, u64::MAX, u64::MAX);
    let mut reconcile = Reconcile::start(&proxy.addr);
    reconcile.pay("e1", "a", 400);
    assert_eq!(reconcile.ack(), "e1,PARTIAL,PARTIALLY_PAID,600,false,");
    server.kill_and_restart();
    proxy.cut_over_to(&server);
    reconcile.pay("e2", "a", 600);
    assert_eq!(reconcile.ack(), "e2,SETTLED,PAID,0,false,");
    let (code, stderr) = reconcile.end();
    assert_eq!(code, 0, "{stderr}");
}
