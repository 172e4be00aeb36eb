//! The machine, the versions and the scale of a run, for the head of its report.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::scenario::{Bench, Scale};
use crate::server::Program;
use crate::{GUARDED_RUNS, HERE};

pub fn describe(bench: &Bench, took: Duration) -> Vec<(String, String)> {
    let Scale { rounds, duration, read_base, write_base, guarded_runs, .. } = &bench.scale;
    let ours = fs::read_to_string(format!("{HERE}/../../Cargo.lock")).unwrap_or_default();
    let theirs = include_str!("../../../Cargo.lock");
    let dirty = !command("git", &["status", "--porcelain"]).is_empty();
    let commit = command("git", &["rev-parse", "--short=12", "HEAD"]);
    let lines = vec![
        ("machine", machine()),
        ("rust", command("rustc", &["--version"])),
        ("grpcio", format!("{}, C core {}", version(&ours, "grpcio"), core(&ours))),
        ("tonic", format!("{}, h2 {}", version(theirs, "tonic"), version(theirs, "h2"))),
        ("tokio", version(theirs, "tokio")),
        ("SQLite", rusqlite::version().to_owned()),
        ("commit", if dirty { format!("{commit}, with changes") } else { commit }),
        ("rounds", format!("{rounds}, of {} ms where time is set", duration.as_millis())),
        ("invoices", format!("{read_base} to read, {write_base} in each copy to write")),
        (GUARDED_RUNS, guarded_runs.to_string()),
        ("took", format!("{:.0} s", took.as_secs_f64())),
    ];
    lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The programs and the sizes of their files in bytes.
pub fn binaries(programs: &[Program]) -> Vec<(String, u64)> {
    let size = |program: &Program| fs::metadata(&program.path).map_or(0, |file| file.len());
    programs.iter().map(|program| (program.name.to_owned(), size(program))).collect()
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    format!("{}, {cores} cores, Linux {}", model.unwrap_or("unknown CPU"), kernel.trim())
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(HERE).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of a package in a lock file.
fn version(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"\nversion = \"");
    let version = lock.split_once(&name).and_then(|(_, rest)| rest.split('"').next());
    version.unwrap_or("unknown").to_owned()
}

/// grpcio-sys bears the version of gRPC that it builds.
fn core(lock: &str) -> String {
    let version = version(lock, "grpcio-sys");
    version.split_once('+').map_or(version.clone(), |(_, core)| core.replace("-patched", ""))
}
