//! What is unwise about a configuration on this machine, and what to do about it. [`machine`](super::machine)
//! reads the machine; here are only plain values.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;

use billstream::config::{Config, Synchronous};

/// What a server has to live with.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Files that the process may have open; `None` without a limit.
    pub open_files: Option<u64>,
    /// Memory of the machine, or of the control group that the process is in.
    pub memory_bytes: Option<u64>,
    /// Where the database is.
    pub db: Disk,
    /// Where the temporary files of uploads are.
    pub spool: Disk,
}

/// A directory, and what it is on.
#[derive(Clone, Debug)]
pub struct Disk {
    pub dir: PathBuf,
    pub kind: FileSystem,
    pub free_bytes: Option<u64>,
}

/// Kinds of file systems, by what goes wrong on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Of a disk of this machine, as far as one can tell.
    Local,
    /// Of another machine, or of a program that may be one's door.
    Network(&'static str),
    /// In memory.
    Memory,
    /// The layer of a container, which goes with it.
    Overlay,
}

/// Looks at one matter: what is unwise about it, and what to do.
type Matter = fn(&Config, &Machine) -> Option<String>;

/// What may go wrong at any time. `serve` warns of it.
const AT_ANY_TIME: &[Matter] =
    &[open_to_all, too_few_files, database_on, spool_on, lost_with_the_power];

/// What goes wrong only where clients take all that the limits give.
const AT_THE_LIMITS: &[Matter] = &[memory, disk];

pub fn at_any_time(config: &Config, machine: &Machine) -> Vec<String> {
    AT_ANY_TIME.iter().filter_map(|matter| matter(config, machine)).collect()
}

pub fn at_the_limits(config: &Config, machine: &Machine) -> Vec<String> {
    AT_THE_LIMITS.iter().filter_map(|matter| matter(config, machine)).collect()
}

/// The most bytes that the server holds for all clients, in words.
pub fn memory_bound(config: &Config) -> String {
    let streams = config.streams_memory_bytes() as u64;
    let grpc = config.grpc_memory_bytes as u64;
    format!(
        "{} = grpc_memory_bytes ({}) + all streams at their limits ({}, of which an export has {}), and the \
         caches of the database beside it",
        BinaryBytes(grpc + streams),
        BinaryBytes(grpc),
        BinaryBytes(streams),
        BinaryBytes(config.export_memory_bytes() as u64)
    )
}

fn open_to_all(config: &Config, _: &Machine) -> Option<String> {
    let is_given = |path: &Path| !path.as_os_str().is_empty();
    let has_tls = is_given(&config.tls_cert);
    let asks_who = is_given(&config.tls_client_ca) || is_given(&config.tokens);
    let first = config.listen.iter().find(|listen| is_public(listen))?;
    match (has_tls, asks_who) {
        (true, true) => None,
        (true, false) => Some(format!(
            "{first} is not loopback, and no client has to show who it is: whoever reaches it reads and writes \
             all. Set tokens or tls_client_ca"
        )),
        (false, true) => Some(format!(
            "{first} is not loopback, and there is no TLS: tokens and rows can be read on the way. Set tls_cert \
             and tls_key, or put a proxy with TLS before it"
        )),
        (false, false) => Some(format!(
            "{first} is not loopback, and there is neither TLS nor a token: whoever reaches it reads and writes all. \
             Listen on 127.0.0.1 or on unix:PATH, or set tls_cert, tls_key and tokens"
        )),
    }
}

/// An address that cannot be resolved is of the start to refuse.
fn is_public(listen: &str) -> bool {
    let addresses = match listen.starts_with("unix:") {
        true => return false,
        false => listen.to_socket_addrs(),
    };
    let is_far = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
    addresses.is_ok_and(|mut addresses| addresses.any(is_far))
}

/// At the worst each stream has a connection of its own, and each upload a temporary file.
fn too_few_files(config: &Config, machine: &Machine) -> Option<String> {
    let limit = machine.open_files?;
    let streams = config.max_exports + config.max_uploads + config.max_reconciles;
    let threads = config.cq_threads + config.unary_workers + config.export_workers;
    // A connection of SQLite has the database, its log and its index.
    let needed = streams + config.max_queued_unary + config.max_uploads + 3 * (threads + 1);
    (limit < needed as u64).then(|| {
        format!(
            "{limit} files may be open, and all streams at their limits, each on a connection of its own, take \
             {needed}: past it no connection is taken. Raise it (`ulimit -n`, or LimitNOFILE= of systemd), or \
             lower max_exports, max_uploads and max_reconciles"
        )
    })
}

fn database_on(_: &Config, machine: &Machine) -> Option<String> {
    let dir = machine.db.dir.display();
    match machine.db.kind {
        FileSystem::Local => None,
        FileSystem::Network(name) => Some(format!(
            "the database is in {dir}, on {name}: the locks and the shared memory of SQLite do not hold between \
             machines, which may corrupt it. Put it on a local disk"
        )),
        FileSystem::Memory => Some(format!(
            "the database is in {dir}, which is in memory: it is gone at the next boot. Put it on a disk"
        )),
        FileSystem::Overlay => Some(format!(
            "the database is in {dir}, in the layer of a container: it goes with the container. Put it on a volume"
        )),
    }
}

fn spool_on(config: &Config, machine: &Machine) -> Option<String> {
    // What is wrong with the place of the database has been said.
    if config.spool_dir.as_os_str().is_empty() {
        return None;
    }
    let dir = machine.spool.dir.display();
    match machine.spool.kind {
        FileSystem::Local | FileSystem::Overlay => None,
        FileSystem::Network(name) => Some(format!(
            "the temporary files of uploads are in {dir}, on {name}: an upload waits for the network twice. Set \
             spool_dir to a local disk"
        )),
        FileSystem::Memory => Some(format!(
            "the temporary files of uploads are in {dir}, which is in memory: they may take {} of it. Set spool_dir \
             to a disk",
            BinaryBytes(spool_bytes(config))
        )),
    }
}

fn lost_with_the_power(config: &Config, _: &Machine) -> Option<String> {
    (config.synchronous == Synchronous::Normal).then(|| {
        "synchronous is normal: what was acknowledged may be lost when the power fails. Set it to full where bills \
         cannot be sent again"
            .to_owned()
    })
}

fn memory(config: &Config, machine: &Machine) -> Option<String> {
    let memory = machine.memory_bytes?;
    let bound = (config.grpc_memory_bytes + config.streams_memory_bytes()) as u64;
    (bound > memory).then(|| {
        format!(
            "clients that take all that the limits give may have {} of memory, and there are {}. Lower \
             max_exports, max_uploads, max_reconciles or max_message_bytes",
            BinaryBytes(bound),
            BinaryBytes(memory)
        )
    })
}

fn spool_bytes(config: &Config) -> u64 {
    config.max_uploads as u64 * config.max_upload_bytes as u64
}

fn disk(config: &Config, machine: &Machine) -> Option<String> {
    let free = machine.spool.free_bytes?;
    let needed = spool_bytes(config);
    (needed > free).then(|| {
        format!(
            "max_uploads uploads of max_upload_bytes take {} of disk while they come, and {} has {} free. Lower \
             one of them, or set spool_dir to a larger disk",
            BinaryBytes(needed),
            machine.spool.dir.display(),
            BinaryBytes(free)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that lacks nothing.
    fn machine() -> Machine {
        let disk = Disk { dir: "/data".into(), kind: FileSystem::Local, free_bytes: Some(1 << 40) };
        Machine {
            open_files: Some(1 << 20),
            memory_bytes: Some(1 << 40),
            db: disk.clone(),
            spool: disk,
        }
    }

    fn all(config: &Config, machine: &Machine) -> Vec<String> {
        [at_any_time(config, machine), at_the_limits(config, machine)].concat()
    }

    #[track_caller]
    fn assert_one(config: &Config, machine: &Machine, parts: &[&str]) {
        let found = all(config, machine);
        assert_eq!(found.len(), 1, "{found:?}");
        for part in parts {
            assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
        }
    }

    #[test]
    fn the_defaults_on_a_large_machine_are_wise() {
        assert_eq!(all(&Config::default(), &machine()), [""; 0]);
        let unlimited = Machine { open_files: None, memory_bytes: None, ..machine() };
        assert_eq!(all(&Config::default(), &unlimited), [""; 0]);
    }

    #[test]
    fn an_address_that_is_not_loopback_is_named() {
        let on = |listen: &[&str]| Config {
            listen: listen.iter().map(|&it| it.to_owned()).collect(),
            ..Config::default()
        };
        let inside =
            on(&["127.0.0.2:1", "[::1]:1", "localhost:1", "unix:/run/a.sock", "no address"]);
        assert_eq!(all(&inside, &machine()), [""; 0]);
        for public in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            let parts = [public, "is not loopback", "Listen on 127.0.0.1"];
            assert_one(&on(&["127.0.0.1:1", public]), &machine(), &parts);
        }
    }

    #[test]
    fn open_files_are_counted_with_a_connection_for_each_stream() {
        let config = Config {
            max_exports: 10,
            max_uploads: 20,
            max_reconciles: 30,
            max_queued_unary: 40,
            cq_threads: 1,
            unary_workers: 1,
            export_workers: 1,
            ..Config::default()
        };
        let with = |open_files| Machine { open_files: Some(open_files), ..machine() };
        assert_eq!(all(&config, &with(132)), [""; 0]);
        assert_one(&config, &with(131), &["131 files may be open", "take 132", "LimitNOFILE="]);
    }

    #[test]
    fn a_database_is_to_be_on_a_disk_of_this_machine() {
        let on = |kind| Machine { db: Disk { kind, ..machine().db }, ..machine() };
        for (kind, why, what_to_do) in [
            (FileSystem::Network("NFS"), "/data, on NFS", "local disk"),
            (FileSystem::Memory, "/data, which is in memory", "on a disk"),
            (FileSystem::Overlay, "/data, in the layer of a container", "volume"),
        ] {
            assert_one(&Config::default(), &on(kind), &[why, what_to_do]);
        }
    }

    #[test]
    fn a_spool_of_its_own_is_to_be_on_a_disk_too() {
        let config = Config { spool_dir: "/spool".into(), ..Config::default() };
        let on = |kind| Machine { spool: Disk { kind, ..machine().spool }, ..machine() };
        assert_one(&config, &on(FileSystem::Network("SMB")), &["on SMB", "spool_dir"]);
        assert_one(&config, &on(FileSystem::Memory), &["64.00 GiB", "spool_dir"]);
        assert_eq!(all(&config, &on(FileSystem::Overlay)), [""; 0]);
    }

    #[test]
    fn acknowledgements_that_the_power_takes_are_unwise() {
        let config = Config { synchronous: Synchronous::Normal, ..Config::default() };
        assert_one(&config, &machine(), &["when the power fails", "Set it to full"]);
    }

    #[test]
    fn memory_and_disk_are_to_last_for_the_limits() {
        let config = Config { max_uploads: 3, max_upload_bytes: 1 << 30, ..Config::default() };
        let disk = Disk { free_bytes: Some((3 << 30) - 1), ..machine().spool };
        let machine = |memory_bytes, spool| Machine { memory_bytes, spool, ..machine() };
        let (parts, enough) = (["take 3.00 GiB", "/data has 3.00 GiB free"], Some(1 << 40));
        assert_one(&config, &machine(enough, disk.clone()), &parts);
        let roomy = Disk { free_bytes: Some(3 << 30), ..disk };
        let bound = (config.grpc_memory_bytes + config.streams_memory_bytes()) as u64;
        assert_eq!(all(&config, &machine(Some(bound), roomy.clone())), [""; 0]);
        assert_one(&config, &machine(Some(bound - 1), roomy), &["of memory", "max_message_bytes"]);
    }

    #[test]
    fn the_bound_on_memory_is_that_of_the_configuration() {
        let bound = memory_bound(&Config::default());
        assert!(bound.contains("grpc_memory_bytes (256.00 MiB)"), "{bound}");
    }
}
