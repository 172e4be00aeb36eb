//! A server in a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::DEADLINE;

/// `billstream serve` with a copy of a database: its memory and its threads are its own. It is
/// killed when this is dropped.
pub struct Process {
    child: Child,
    pub addr: String,
    pub db: PathBuf,
    dir: tempfile::TempDir,
}

impl Process {
    pub fn with_copy(db: &Path, flags: &[&str]) -> Process {
        Process::with_env(db, flags, &[])
    }

    /// The same with variables of the environment.
    pub fn with_env(db: &Path, flags: &[&str], env: &[(&str, &str)]) -> Process {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("bills.db");
        std::fs::copy(db, &copy).unwrap();
        let (child, addr) = serve(&copy, &dir.path().join("log"), flags, env);
        Process { child, addr, db: copy, dir }
    }

    /// `kill -9`, and another one with the same database, at another address.
    pub fn kill_and_start(&mut self, flags: &[&str]) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.addr) = serve(&self.db, &self.dir.path().join("log"), flags, &[]);
    }

    /// SIGTERM: how long it takes to end, which it does well.
    pub fn stop(&mut self) -> Duration {
        let start = Instant::now();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        start.elapsed()
    }

    /// What it has written to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub fn rss_mib(&self) -> u64 {
        self.status("VmRSS:") / 1024
    }

    /// The largest that its memory has been since [`Process::forget_peak`].
    pub fn peak_rss_mib(&self) -> u64 {
        self.status("VmHWM:") / 1024
    }

    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// The names of its threads, in order.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // One that ends meanwhile has no name any more.
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        let names = tasks.filter_map(|task| name(task.unwrap()));
        let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
        names.sort();
        names
    }

    pub fn has_thread(&self, name: &str) -> bool {
        self.threads().iter().any(|thread| thread == name)
    }

    /// A number of /proc/PID/status.
    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of `billstream serve`:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `billstream serve`; it and its address, once it serves.
fn serve(db: &Path, log: &Path, flags: &[&str], env: &[(&str, &str)]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_billstream"))
        .args(["serve", "--listen", "127.0.0.1:0", "--db"])
        .arg(db)
        .args(flags)
        .env("RUST_LOG", "warn")
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(File::create(log).unwrap())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (line, first_line) = mpsc::channel();
    std::thread::spawn(move || line.send(out.lines().next()));
    let line = first_line.recv_timeout(DEADLINE).expect("it serves").expect("it serves").unwrap();
    (child, line.strip_prefix("listening on ").unwrap().to_owned())
}
