//! What the machine gives to a server: files, memory and disks.

use std::fs;
use std::path::Path;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use billstream::Config;

use super::advice::{Disk, FileSystem, Machine};

/// Reads what a server with `config` would have here. What cannot be read is taken as good.
pub fn read(config: &Config) -> Machine {
    let dir = config.db.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    let spool = match config.spool_dir.as_os_str().is_empty() {
        true => dir,
        false => &config.spool_dir,
    };
    // Of the two limits a server raises the lower one: see `raise_open_files`.
    let open_files = getrlimit(Resource::Nofile).maximum;
    Machine { open_files, memory_bytes: memory_bytes(), db: disk(dir), spool: disk(spool) }
}

/// Raises the limit on open files to the highest that the process may have. The lower one is there for programs
/// that call `select`, which takes no file past 1,024; gRPC has `epoll`.
pub fn raise_open_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        log::warn!("the limit on open files stays as it is: {error}");
    }
}

/// Of the machine, or of the control group of this process where that has less.
fn memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total: u64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(group_bytes().map_or(total << 10, |bytes| bytes.min(total << 10)))
}

fn group_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit = fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.max")).ok()?;
    // Without a limit it is the word `max`.
    limit.trim().parse().ok()
}

fn disk(dir: &Path) -> Disk {
    let found = rustix::fs::statfs(dir).ok();
    let free_bytes =
        found.and_then(|found| found.f_bavail.checked_mul(u64::try_from(found.f_bsize).ok()?));
    let kind = found.map_or(FileSystem::Local, |found| file_system(found.f_type as u32));
    Disk { dir: dir.to_owned(), kind, free_bytes }
}

/// By the number that `statfs(2)` gives.
fn file_system(number: u32) -> FileSystem {
    match number {
        0x6969 => FileSystem::Network("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => FileSystem::Network("SMB"),
        0x0102_1997 => FileSystem::Network("9P"),
        0x00c3_6400 => FileSystem::Network("Ceph"),
        0x5346_414f => FileSystem::Network("AFS"),
        0x6573_5546 => FileSystem::Network("FUSE, which may be a network"),
        0x0102_1994 | 0x8584_58f6 => FileSystem::Memory,
        0x794c_7630 => FileSystem::Overlay,
        _ => FileSystem::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read() {
        let db = "billstream.db".into();
        let machine = read(&Config { db, spool_dir: "/dev/shm".into(), ..Config::default() });
        assert!(machine.memory_bytes.unwrap() > 1 << 20, "{machine:?}");
        assert!(machine.db.free_bytes.is_some(), "{machine:?}");
        assert_eq!(machine.db.dir, Path::new("."));
        assert_eq!(machine.spool.kind, FileSystem::Memory, "{machine:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_for_the_start_to_refuse() {
        let disk = disk(Path::new("/no/such/directory"));
        assert_eq!((disk.kind, disk.free_bytes), (FileSystem::Local, None));
    }

    #[test]
    fn the_limit_on_open_files_is_raised_to_the_highest() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
