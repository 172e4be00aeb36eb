//! Why the database cannot be written now.
//!
//! The writer says what it meets: a lock that it waits for, a write that failed, a fault of the file. A write
//! that failed counts until another one succeeds; the writer then tries one itself, once a second. Where nothing
//! has failed it writes nothing for this, so that an idle server leaves its disk alone. What can be seen
//! without the writer is looked at here, since the writer may be long at one transaction, and may find room in
//! a log that has its size already where the disk has none.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::fs::{statvfs, StatVfsMountFlags};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::sqlite::error::LOCKED;
use crate::store::sqlite::file::{DatabaseFile, Identity};
use crate::store::sqlite::guard::Fault;
use crate::store::sqlite::wal::FAULTY;

/// How long another process may have the database locked, as one does that writes, before that is a reason.
pub const LOCK_PATIENCE: Duration = Duration::from_millis(400);

/// What is known of it. All clones are one.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

struct Shared {
    path: PathBuf,
    identity: Identity,
    min_free_bytes: u64,
    met: Mutex<Met>,
}

/// What the writer has met.
#[derive(Default)]
struct Met {
    /// Since when it has waited for the lock of another process, in one or several transactions.
    locked_since: Option<Instant>,
    fault: Option<String>,
    /// Why the last write failed.
    failure: Option<String>,
    has_ended: bool,
}

impl Health {
    pub fn new(db: &DatabaseFile, config: &Config) -> Result<Health> {
        Ok(Health(Arc::new(Shared {
            path: db.path().to_owned(),
            identity: Identity::of(&db.metadata()?),
            min_free_bytes: config.min_free_bytes,
            met: Mutex::default(),
        })))
    }

    /// A transaction waits for the lock from now on.
    pub fn waits(&self) {
        self.met().locked_since.get_or_insert_with(Instant::now);
    }

    /// It has the lock, or has given up.
    pub fn waited<T>(&self, begun: &Result<T>) {
        let is_lock = |error: &Error| matches!(error, Error::Unavailable(why) if why == LOCKED);
        if !begun.as_ref().is_err_and(is_lock) {
            self.met().locked_since = None;
        }
    }

    /// The file was found to be as it should be, or not.
    pub fn judged(&self, fault: Option<&Fault>) {
        self.met().fault = fault.map(Fault::to_string);
    }

    /// A write has failed, or a part of one.
    pub fn failed(&self, error: &Error) {
        if let Error::Unavailable(why) = error {
            // Of locks and of what is wrong with the file it hears otherwise.
            if why != LOCKED && why != FAULTY {
                self.met().failure = Some(why.clone());
            }
        }
    }

    /// A whole write has succeeded.
    pub fn committed(&self) {
        self.met().failure = None;
    }

    /// Whether the last write has failed.
    pub fn has_failed(&self) -> bool {
        self.met().failure.is_some()
    }

    /// The writer has ended.
    pub fn ended(&self) {
        self.met().has_ended = true;
    }

    /// Why the database cannot be written now; nothing where it can.
    pub fn reasons(&self) -> Vec<String> {
        let (moved, without_room) = (self.moved(), self.without_room());
        let met = self.met();
        let is_locked = met.locked_since.is_some_and(|since| since.elapsed() >= LOCK_PATIENCE);
        let found = [
            met.fault.clone().or(moved),
            is_locked.then(|| LOCKED.to_owned()),
            met.failure.clone(),
            without_room,
            met.has_ended.then(|| "the writer has ended".to_owned()),
        ];
        found.into_iter().flatten().collect()
    }

    fn moved(&self) -> Option<String> {
        let path = &self.0.path;
        match path.metadata() {
            Ok(it) if Identity::of(&it) == self.0.identity => None,
            Ok(_) => Some(format!("{} was replaced", path.display())),
            Err(error) => Some(format!("{} is not there any more: {error}", path.display())),
        }
    }

    fn without_room(&self) -> Option<String> {
        let dir = self.0.path.parent()?;
        // Where the directory is gone, so is the file.
        let disk = statvfs(dir).ok()?;
        if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Some(format!("{} is on a file system that is read-only", dir.display()));
        }
        let least = self.0.min_free_bytes;
        let is_full = disk.f_bavail.saturating_mul(disk.f_frsize) < least;
        is_full.then(|| {
            format!("the disk of {} has less than min_free_bytes = {least} free", dir.display())
        })
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.0.met.lock().unwrap_or_else(|e| e.into_inner())
    }
}
