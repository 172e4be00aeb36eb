//! What the system knows of this process: from `/proc`, where there is one.

use std::fs;

/// What it takes.
pub struct Process {
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_files: u64,
    pub max_files: u64,
    pub threads: u64,
    /// Of all threads, in user and in system mode.
    pub cpu_seconds: f64,
}

/// `/proc` counts in kibibytes, and in ticks of a hundredth of a second: for programs that look from outside the
/// kernel has no other (<https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>, `USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

impl Process {
    /// `None` where the system does not tell.
    pub fn now() -> Option<Process> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let max_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        // The name of the program is in parentheses, and may have anything in it.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
        Some(Process {
            resident_bytes: number("VmRSS:")? << 10,
            virtual_bytes: number("VmSize:")? << 10,
            open_files: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            // `unlimited` is no number.
            max_files: max_files.split_whitespace().next()?.parse().unwrap_or(u64::MAX),
            threads: number("Threads:")?,
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_A_SECOND,
        })
    }
}
