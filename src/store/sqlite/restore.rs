//! Putting a backup in the place of a database.

use std::fs;
use std::os::unix::fs::{chown, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};
use crate::store::sqlite::copy::copy_database;
use crate::store::sqlite::file::{sync_directory, temporary, unusable, DatabaseFile};
use crate::store::sqlite::maintain::check_connection;
use crate::store::sqlite::open::{open_reader, refuse_other_program};
use crate::store::sqlite::wal_file::{self, beside};

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The invoices of the database.
    pub invoice_count: i64,
    /// Where what was there before is kept.
    pub kept: Option<PathBuf>,
}

/// Puts a copy of the backup `from` at `db`. The backup is checked first, and a database that a server has
/// is refused. A kill at any moment leaves the old database or the new one, whole; where the old one has a log
/// that cannot be brought into it, a kill may leave an empty file, which a start refuses until a restore was
/// run again.
///
/// What was there is kept beside it under a name that ends in `.before-restore` (and a number), with its log
/// where that could not be brought into it; unless `keep` is false. [`check`](super::maintain::check) has an
/// example.
///
/// # Errors
///
/// [`Error::Unusable`] where `from` is not sound, or a file cannot be written; [`Error::Unavailable`] where a server
/// has `db`.
pub fn restore(from: &Path, db: &Path, keep: bool) -> Result<Restored> {
    let source = open_backup(from)?;
    let report = check_connection(&source)?;
    if let Some(fault) = report.faults.first() {
        return Err(Error::Unusable(format!("{} is not sound: {fault}", from.display())));
    }
    let mut target = DatabaseFile::take(db)?;
    let path = target.path().to_owned();
    let new = temporary(&path, "restore")?;
    copy_database(&source, new.path()).map_err(|e| unusable(&path, &e))?;
    let kept = if path.exists() { put_aside(&path, new.path(), keep)? } else { None };
    if LOGS.iter().any(|suffix| has_bytes(&beside(&path, suffix))) {
        clear(&mut target)?;
    }
    target.put(new)?;
    for suffix in ["-wal", "-shm"] {
        remove(&beside(&path, suffix))?;
    }
    target.keep();
    Ok(Restored { invoice_count: report.invoice_count, kept })
}

/// A file without a log needs no file beside it, and may be where none can be made.
pub fn open_backup(from: &Path) -> Result<Connection> {
    let has_log = LOGS.iter().any(|suffix| beside(from, suffix).exists());
    if has_log || !from.is_file() {
        return open_reader(from);
    }
    let path = from.canonicalize().map_err(|e| unusable(from, &e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(wal_file::immutable(&path), flags)
        .map_err(|e| unusable(from, &e))?;
    refuse_other_program(&conn, from)?;
    Ok(conn)
}

const LOGS: [&str; 2] = ["-wal", "-journal"];

fn has_bytes(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.len() > 0)
}

/// Takes away the old file and then its log, which SQLite might replay into the new file, and without which
/// the old one would have lost rows in silence. A start refuses what is there in between.
fn clear(target: &mut DatabaseFile) -> Result<()> {
    // Its lock file tells a start that there was a database, also where this fails.
    target.keep();
    let path = target.path();
    let empty = temporary(path, "restore")?;
    if path.exists() {
        set_owner(empty.path(), path)?;
    }
    target.put(empty)?;
    LOGS.iter().try_for_each(|suffix| remove(&beside(path, suffix)))?;
    sync_directory(path).map_err(|e| unusable(path, &e))
}

/// Gives `new` the permissions and the owner of `old`, as far as this process may.
pub fn set_owner(new: &Path, old: &Path) -> Result<()> {
    let failed = |e: std::io::Error| unusable(old, &e);
    let (is, was) = (new.metadata().map_err(failed)?, old.metadata().map_err(failed)?);
    fs::set_permissions(new, was.permissions()).map_err(failed)?;
    if (is.uid(), is.gid()) == (was.uid(), was.gid()) {
        return Ok(());
    }
    let owned = chown(new, Some(was.uid()), Some(was.gid()));
    match owned {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            // OK to fail: it is another's group, which the warning is of too.
            let _ = chown(new, None, Some(was.gid()));
            let (db, uid, gid) = (old.display(), was.uid(), was.gid());
            log::warn!("{db} cannot be given to its owner {uid}:{gid}: {error}");
            Ok(())
        }
        owned => owned.map_err(failed),
    }
}

/// Makes the old database one file, if it can be one, and copies it to a name of its own.
fn put_aside(path: &Path, new: &Path, keep: bool) -> Result<Option<PathBuf>> {
    set_owner(new, path)?;
    // SQLite would delete the log of an empty file.
    if has_bytes(path) {
        if let Err(error) = empty_log(path) {
            log::warn!("the log of {} is not brought into the file: {error}", path.display());
        }
    }
    if !keep {
        return Ok(None);
    }
    let kept = free_name(path, ".before-restore");
    for suffix in ["-wal", "-journal", ""] {
        let old = beside(path, suffix);
        if has_bytes(&old) {
            copy_file(&old, &beside(&kept, suffix))?;
        }
    }
    sync_directory(path).map_err(|e| unusable(path, &e))?;
    Ok(Some(kept))
}

/// Brings the log into the database, so that a kill after it is gone loses nothing.
fn empty_log(path: &Path) -> Result<()> {
    wal_file::refuse_foreign(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    Ok(conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

/// The name of `path` and `suffix`, with a number where that is taken.
pub fn free_name(path: &Path, suffix: &str) -> PathBuf {
    let numbered = (2..).map(|n| beside(path, &format!("{suffix}-{n}")));
    let mut names = std::iter::once(beside(path, suffix)).chain(numbered);
    // OK because the numbers do not end.
    let is_free = |name: &PathBuf| {
        ["", "-wal", "-journal"].iter().all(|suffix| !beside(name, suffix).exists())
    };
    names.find(is_free).expect("a name that is free")
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let unusable =
        |e: std::io::Error| Error::Unusable(format!("cannot write {}: {e}", to.display()));
    let copy = temporary(to, "partial")?;
    fs::copy(from, copy.path()).map_err(unusable)?;
    copy.as_file().sync_all().map_err(unusable)?;
    copy.persist_noclobber(to).map_err(|e| unusable(e.error))?;
    Ok(())
}

/// Takes a file away, if it is there.
pub fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unusable(file, &error)),
        _ => Ok(()),
    }
}
