//! The processes under measurement, and what the kernel says of them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use compare::client::{Connection, Guard};
use compare::load::{self, Unary};

/// A program that serves our proto, and how it is started.
#[derive(Clone)]
pub struct Program {
    pub name: &'static str,
    pub path: PathBuf,
    pub arguments: Vec<String>,
    /// The file that its certificate is trusted by, where it speaks TLS.
    pub tls_ca: Option<String>,
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process to its first answer.
    pub started_in: Duration,
}

impl Server {
    /// Starts the program over a database and waits for its first answer.
    pub fn start(program: &Program, db: Option<&Path>, log: &Path) -> Result<Server, String> {
        let fail = |what: &str, error: &dyn std::fmt::Display| {
            format!("{}: {what}: {error}", program.path.display())
        };
        let log = File::options().create(true).append(true).open(log);
        let log = log.map_err(|error| fail("its log", &error))?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).args(["--listen", "127.0.0.1:0"]);
        if let Some(db) = db {
            command.arg("--db").arg(db);
        }
        let start = Instant::now();
        let child = command.stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.map_err(|error| fail("does not start", &error))?;
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let address = line.trim().strip_prefix("listening on ").and_then(|text| text.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            return Err(fail("did not say where it listens", &format!("{read:?} {line:?}")));
        };
        let mut server = Server { child, address, started_in: Duration::ZERO };
        // Our own client does not speak TLS.
        if program.tls_ca.is_none() {
            server.first_answer().map_err(|error| fail("does not answer", &error))?;
        }
        server.started_in = start.elapsed();
        Ok(server)
    }

    fn first_answer(&self) -> Result<(), String> {
        load::run(async {
            let connection = Connection::open(self.address, Guard::Raised).await?;
            let Unary { method, message } = Unary::summary();
            connection.unary(method, message).await
        })
        .map(drop)
        .map_err(|failure| failure.message)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    /// The CPU time of all threads. (A thread that ends takes its time with it; pools keep theirs
    /// for longer than a measurement lasts.)
    pub fn cpu(&self) -> Option<Duration> {
        let mut sum = 0;
        for thread in fs::read_dir(self.proc("task")).ok()? {
            sum += nanoseconds(&thread.ok()?.path().join("schedstat"))?;
        }
        Some(Duration::from_nanos(sum))
    }

    /// A number of `/proc/PID/status`: kilobytes of VmHWM and VmRSS, or the number of threads.
    pub fn status(&self, key: &str) -> Option<f64> {
        let status = fs::read_to_string(self.proc("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Makes VmHWM begin again at what is in use now; where that is not allowed, it goes on from
    /// the start of the process.
    pub fn reset_peak(&self) {
        let _ = fs::write(self.proc("clear_refs"), "5");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that ended by itself is reported by the load that it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The time on a CPU that a schedstat file tells.
pub fn nanoseconds(schedstat: &Path) -> Option<u64> {
    fs::read_to_string(schedstat).ok()?.split_whitespace().next()?.parse().ok()
}
