//! Processes and servers of the tests, which end with them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The longest that anything here may take.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub const HEADER: &str = "invoice_id,customer_id,total_amount_cents,currency,issued_at,memo\n";
pub const THREE: &str = "\
invoice_id,customer_id,total_amount_cents,currency,issued_at,memo
a,anna,1000,USD,2020-01-01T00:00:00Z,
b,bert,2000,USD,2021-01-01T00:00:00.5Z,\"two, with \"\"quotes\"\"\"
c,anna,3000,EUR,2022-01-01T00:00:00Z,Zürich
";

pub const EVENTS: &str = "event_id,invoice_id,amount_cents,currency,received_at,reference\n";

pub const COLUMNS: &str = "invoice_id,customer_id,total_amount_cents,currency,issued_at,memo";

/// A program, with nothing of the caller's environment that billstream would take for settings.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BILLSTREAM_")) {
        command.env_remove(name);
    }
    command
}

/// The binary, in the same way.
pub fn billstream(args: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_billstream"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that does not outlive its test.
pub struct Process {
    pub child: Child,
    stderr: Arc<Said>,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        Process::start_with(&mut command)
    }

    /// As [`Process::start`]; stderr may be elsewhere.
    pub fn start_with(command: &mut Command) -> Process {
        let mut child = command.spawn().expect("the binary starts");
        // The parent's ends of pipes that a test gave it would keep them open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let stderr = Said::listen(child.stderr.take());
        Process { child, stderr }
    }

    /// Waits until it has said `text` on stderr.
    pub fn says(&self, text: &str) {
        self.stderr.wait_until(text, |said| said.text.contains(text));
    }

    /// All of stderr, at its end.
    pub fn stderr(&self) -> String {
        self.stderr.wait_until("the end", |said| said.ended)
    }

    /// The lines of stdout as they come.
    pub fn lines(&mut self) -> Receiver<String> {
        let (sender, lines) = channel();
        let stdout = BufReader::new(self.child.stdout.take().unwrap());
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        lines
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// How often its threads have waited for something so far.
    pub fn switches(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let waits = tasks.map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.expect("Linux counts them").trim().parse::<u64>().unwrap()
        });
        waits.sum()
    }

    /// The exit code, or below 0 the signal that ended it.
    pub fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().or(status.signal().map(|signal| -signal)).unwrap();
            }
            assert!(start.elapsed() < DEADLINE, "the process does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end with all output.
    pub fn output(mut self) -> Output {
        let stdout = self.child.stdout.take().map(collect);
        let code = self.wait();
        let text = |text: Receiver<String>| text.recv_timeout(DEADLINE).expect("the output ends");
        Output { code, stdout: stdout.map(text).unwrap_or_default(), stderr: self.stderr() }
    }
}

/// What a process has said so far.
#[derive(Default)]
struct Said {
    state: Mutex<SaidSoFar>,
    changed: Condvar,
}

#[derive(Default)]
struct SaidSoFar {
    text: String,
    ended: bool,
}

impl Said {
    fn listen(stderr: Option<impl Read + Send + 'static>) -> Arc<Said> {
        let said = Arc::new(Said::default());
        let hears = Arc::clone(&said);
        thread::spawn(move || {
            let lines = stderr.map(BufReader::new).into_iter().flat_map(BufRead::lines);
            for line in lines {
                hears.add(|said| said.text += &(line.expect("UTF-8") + "\n"));
            }
            hears.add(|said| said.ended = true);
        });
        said
    }

    fn add(&self, change: impl FnOnce(&mut SaidSoFar)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&SaidSoFar) -> bool) -> String {
        let state = self.state.lock().unwrap();
        let (state, _) =
            self.changed.wait_timeout_while(state, DEADLINE, |said| !holds(said)).unwrap();
        assert!(holds(&state), "no {what:?} in {:?}", state.text);
        state.text.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn collect(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, text) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8(bytes).expect("UTF-8"));
    });
    text
}

#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub fn fails(self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(message), "no {message:?} in {self:?}");
    }
}

pub fn run(args: &[&str]) -> Output {
    Process::start(billstream(args)).output()
}

/// Runs with `input` on stdin.
pub fn run_with_stdin(args: &[&str], input: &str) -> Output {
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
pub struct Server {
    pub process: Process,
    pub addr: String,
    pub dir: TempDir,
}

impl Server {
    pub fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let (process, addr) = serve(&dir.path().join("bills.db"));
        Server { process, addr, dir }
    }

    /// A server with the invoices of [`THREE`].
    pub fn with_three() -> Server {
        let server = Server::start();
        let file = server.file("three.csv", THREE);
        server.run(&["import", &file]).ok();
        server
    }

    /// Kills the server as a power cut would, and serves the same database again.
    pub fn kill_and_restart(&mut self) {
        self.process.signal("KILL");
        self.process.wait();
        (self.process, self.addr) = serve(&self.path("bills.db"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        text_of(&self.path(name))
    }

    pub fn run(&self, args: &[&str]) -> Output {
        run(&at(args, &self.addr))
    }

    pub fn summary(&self) -> String {
        self.run(&["summary", "--format", "ndjson"]).ok()
    }
}

pub fn at<'a>(args: &[&'a str], addr: &'a str) -> Vec<&'a str> {
    [args, &["--addr", addr]].concat()
}

pub fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub fn serve(db: &Path) -> (Process, String) {
    let mut process =
        Process::start(billstream(&["serve", "--db", &text_of(db), "--listen", "127.0.0.1:0"]));
    let line = process.lines().recv_timeout(DEADLINE).expect("the server starts");
    let addr = line.strip_prefix("listening on ").expect("the promised line").to_owned();
    (process, addr)
}

/// The real data set, where it is.
pub fn cdnow() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/cdnow.csv");
    if path.exists() {
        return Some(text_of(&path));
    }
    println!("skipped: there is no {}", path.display());
    None
}

/// Made-up invoices as a csv.
pub fn generate(rows: u64) -> String {
    run(&["generate", "--rows", &rows.to_string(), "--seed", "1"]).ok()
}

/// The event `i`: a cent for `invoice`.
pub fn event_row(i: usize, invoice: &str) -> String {
    format!("e{i},{invoice},1,USD,2023-01-01T00:00:00Z,\n")
}
