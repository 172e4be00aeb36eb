//! What these tests share: a server in a process of its own, clients with small windows, and the
//! details of a status.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{mpsc, Arc};
use std::time::Duration;

use billstream::client::Client;
use billstream::proto::error_details::{RetryInfo, Status};
use grpcio::{CallOption, ChannelBuilder, EnvBuilder, RpcStatus};
use protobuf::Message;

use crate::common::DEADLINE;

/// `billstream serve` with a copy of a database: its memory and its threads are its own. It is
/// killed when this is dropped.
pub struct Process {
    child: Child,
    pub addr: String,
    pub db: PathBuf,
    _dir: tempfile::TempDir,
}

impl Process {
    pub fn with_copy(db: &Path, flags: &[&str]) -> Process {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("bills.db");
        std::fs::copy(db, &copy).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_billstream"))
            .args(["serve", "--listen", "127.0.0.1:0", "--db"])
            .arg(&copy)
            .args(flags)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (line, first_line) = mpsc::channel();
        std::thread::spawn(move || line.send(out.lines().next().unwrap().unwrap()));
        let line = first_line.recv_timeout(DEADLINE).expect("it serves");
        let addr = line.strip_prefix("listening on ").unwrap().to_owned();
        Process { child, addr, db: copy, _dir: dir }
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

    /// A number of /proc/PID/status.
    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A call that hangs fails instead.
pub fn options() -> CallOption {
    CallOption::default().timeout(2 * DEADLINE)
}

/// Clients with a connection each, on two threads together, and with a window of 64 KiB a stream:
/// gRPC would otherwise enlarge it to megabytes on loopback.
pub fn slow_clients(addr: &str, count: usize) -> Vec<Client> {
    let env = Arc::new(EnvBuilder::new().cq_count(2).build());
    let client = |_| {
        let builder = ChannelBuilder::new(Arc::clone(&env))
            .http2_bdp_probe(false)
            .use_local_subchannel_pool(true);
        Client::with_channel(builder.connect(addr))
    };
    (0..count).map(client).collect()
}

/// Clients with a connection each, on two threads together.
pub fn clients(addr: &str, count: usize) -> Vec<Client> {
    let env = Arc::new(EnvBuilder::new().cq_count(2).build());
    (0..count).map(|_| Client::with_env(Arc::clone(&env), addr)).collect()
}

/// The delay of the google.rpc.RetryInfo in the details of a status.
pub fn retry_delay(status: &RpcStatus) -> Duration {
    let details = Status::parse_from_bytes(status.details()).unwrap();
    assert_eq!(details.message, status.message());
    let info = details.details.iter().find_map(|any| any.unpack::<RetryInfo>().unwrap());
    let delay = info.expect("the details have a RetryInfo").retry_delay.unwrap();
    Duration::new(delay.seconds as u64, delay.nanos as u32)
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
