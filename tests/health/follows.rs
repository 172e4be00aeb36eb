//! Health follows what happens to the database, and comes back by itself, within two seconds each.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use billstream::proto::health::health_check_response::ServingStatus::{self, *};
use billstream::{Config, Server};

use crate::client::{Asker, Watch};
use crate::common::process::Process;
use crate::common::*;
use crate::disks::{failing_disk, SmallDisk};

const MIB: usize = 1 << 20;
/// The longest that a change may take to be told.
const LIMIT: Duration = Duration::from_secs(2);

/// A Watch that has heard that all is well.
fn serving(addr: &str) -> Watch {
    let mut watch = Asker::new(addr).watch("billing.v1.ReportService");
    watch.turns(SERVING);
    watch
}

fn assert_turns(watch: &mut Watch, status: ServingStatus, what: &str) {
    let took = watch.turns(status);
    println!("{what}: {status:?} after {took:?}");
    assert!(took < LIMIT, "{what}: {status:?} after {took:?}");
}

fn assert_reason(server: &Server, reason: &str) {
    let health = server.health();
    assert!(!health.serving);
    let is_there = health.reasons.iter().any(|it| it.contains(reason));
    assert!(is_there, "{reason}: {:?}", health.reasons);
}

#[test]
fn a_full_disk() {
    let _alone = alone();
    let Some(disk) = SmallDisk::mount(16 * MIB) else { return };
    let db = disk.path().join("bills.db");
    let listen = vec!["127.0.0.1:0".to_owned()];
    let server = Server::start(Config { db, listen, ..Config::default() }).unwrap();
    let mut watch = serving(&server.addr().to_string());
    // Nobody writes: there would be room in the log for a small one.
    for _ in 0..2 {
        let ballast = disk.fill("ballast", 16 * MIB);
        assert_turns(&mut watch, NOT_SERVING, "a full disk");
        assert_reason(&server, "min_free_bytes");
        fs::remove_file(ballast).unwrap();
        assert_turns(&mut watch, SERVING, "room again");
    }
    server.shutdown().unwrap();
}

#[test]
fn a_locked_database() {
    let _alone = alone();
    let server = TestServer::start(Config::default());
    let mut watch = serving(&server.addr());
    let locked = server.sql();
    locked.busy_timeout(DEADLINE).unwrap();
    for is_written_to in [false, true] {
        locked.execute_batch("BEGIN IMMEDIATE").unwrap();
        std::thread::scope(|scope| {
            if is_written_to {
                let client = server.client();
                scope.spawn(move || upload(&client, [invoice("a", 1)]).unwrap());
            }
            assert_turns(&mut watch, NOT_SERVING, "a lock");
            assert_reason(server.get(), "locked by another process");
            locked.execute_batch("ROLLBACK").unwrap();
            assert_turns(&mut watch, SERVING, "no lock");
        });
    }
}

#[test]
fn a_file_that_is_moved_or_replaced() {
    let _alone = alone();
    let server = TestServer::start(Config::default());
    let mut watch = serving(&server.addr());
    let (db, away) = (&server.config.db, server.dir.path().join("away.db"));
    for replaced in [false, true] {
        fs::rename(db, &away).unwrap();
        if replaced {
            fs::copy(&away, db).unwrap();
        }
        assert_turns(&mut watch, NOT_SERVING, "the file is gone");
        assert_reason(server.get(), if replaced { "was replaced" } else { "is not there" });
        fs::rename(&away, db).unwrap();
        assert_turns(&mut watch, SERVING, "the file is back");
    }
}

/// Starts `billstream serve` on a disk that fails as the file `switch` says.
fn on_failing_disk(dir: &Path, switch: &Path) -> Process {
    let library = failing_disk(dir);
    let env =
        [("LD_PRELOAD", library.to_str().unwrap()), ("FAILING_DISK", switch.to_str().unwrap())];
    Process::with_env(&database(1000), &[], &env)
}

#[test]
fn a_disk_that_fails() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let switch = dir.path().join("switch");
    let server = on_failing_disk(dir.path(), &switch);
    let client = billstream::client::Stub::new(&server.addr);
    let mut watch = serving(&server.addr);
    for (i, kind) in ["sync", "read", "write"].into_iter().enumerate() {
        fs::write(&switch, kind).unwrap();
        if kind == "write" {
            // That is seen when something is written.
            upload(&client, [invoice("refused", 1)]).unwrap_err();
        }
        assert_turns(&mut watch, NOT_SERVING, kind);
        fs::remove_file(&switch).unwrap();
        assert_turns(&mut watch, SERVING, kind);
        upload(&client, [invoice(&format!("invoice-{i}"), 1)]).unwrap();
    }
    let log = server.log();
    assert_eq!(log.matches("NOT SERVING").count(), 3, "{log}");
}

/// A writer that is never idle has no time to look, and need not.
#[test]
fn a_busy_writer_is_healthy() {
    let _alone = alone();
    let mut server = TestServer::start(Config::default());
    let mut watch = serving(&server.addr());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let statuses =
            scope.spawn(move || std::iter::from_fn(|| watch.next().ok()).collect::<Vec<_>>());
        let client = server.client();
        for i in 0.. {
            if start.elapsed() > LIMIT {
                break;
            }
            upload(&client, (0..2_000).map(|j| invoice(&format!("{i}-{j}"), 1))).unwrap();
        }
        drop(client);
        server.stop();
        // For the stop; grpcio drops a message that comes together with an error.
        let statuses = statuses.join().unwrap();
        assert!([&[][..], &[NOT_SERVING]].contains(&&statuses[..]), "{statuses:?}");
    });
}

/// It looks at the lock, which it does not take for a write.
#[test]
fn an_idle_server_writes_nothing_to_know_its_health() {
    let _alone = alone();
    let server = TestServer::start(Config::default());
    let (observer, locked) = (server.sql(), server.sql());
    let version =
        || observer.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
    let mut watch = serving(&server.addr());
    let before = version();
    // Each of these turns is a look of the idle writer.
    for _ in 0..2 {
        locked.execute_batch("BEGIN IMMEDIATE").unwrap();
        watch.turns(NOT_SERVING);
        locked.execute_batch("ROLLBACK").unwrap();
        watch.turns(SERVING);
    }
    assert_eq!(version(), before);
    assert_eq!(fs::metadata(server.dir.path().join("bills.db-wal")).unwrap().len(), 0);
}
