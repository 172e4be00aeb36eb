//! Bringing the file of an older version to this one.
//!
//! It is one transaction of the write-ahead log, so that the file is the old one until the commit is in the log
//! and the new one from then on, whenever the process is killed. Memory is bounded by the page cache: what does
//! not fit is in the log, and what is sorted in temporary files of SQLite's own.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::Connection;
use tempfile::{NamedTempFile, TempPath};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::disk;
use crate::store::sqlite::copy::{self, NewFile};
use crate::store::sqlite::file::unusable;
use crate::store::sqlite::restore::{free_name, remove, set_owner};
use crate::store::sqlite::sql::MIGRATIONS;
use crate::store::sqlite::wal_file::beside;

/// "bill" in SQLite's header: the file is a billstream database.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"bill");

/// The version of the schema that this program knows.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// Of the page cache, and of each sort; no more is gained by more.
const CACHE_KIB: i64 = 8 << 10;

/// Runs the scripts from `version` on, in the transaction that is open.
pub fn migrate(conn: &Connection, version: i32) -> Result<()> {
    for script in &MIGRATIONS[version as usize..] {
        conn.execute_batch(script)?;
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(conn.pragma_update(None, "user_version", VERSION)?)
}

/// Brings the database at `path` from `version` to this one, and says so. As it was it is kept beside it, unless
/// the configuration says not to. The file is taken, and has a write-ahead log.
pub fn upgrade(path: &Path, conn: &mut Connection, config: &Config, version: i32) -> Result<()> {
    let begun = Instant::now();
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // What a migration writes is no change that an operator's triggers are to hear of.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    // What is copied is what is upgraded: if another program writes in between, this cannot.
    let transaction = conn.transaction()?;
    let bytes = copy::size(&transaction)?;
    let kept = config.upgrade_copy.then(|| free_name(path, &format!(".version-{version}")));
    let as_it_was = match &kept {
        Some(kept) => format!("as it was it stays in {}", kept.display()),
        None => "no copy is kept of it as it was".to_owned(),
    };
    let db = path.display();
    log::warn!(
        "{db} ({bytes} bytes) is brought from version {version} of its schema to {VERSION}, which older programs refuse; {as_it_was}"
    );
    let copy = match &kept {
        Some(kept) => Some(copy_of(&transaction, path, kept, bytes)?),
        None => None,
    };
    // The log says which state of the file it continues.
    copy::renew_state(&transaction)?;
    migrate(&transaction, version).map_err(|e| failed(path, version, &e))?;
    // The copy has its name first, so that a kill leaves no new file without it; and before that the log has all but
    // the last page, or else a disk that is full now would leave a copy of what was not upgraded.
    transaction.cache_flush().map_err(|e| failed(path, version, &e.into()))?;
    copy.map(NewFile::keep).transpose()?;
    transaction.commit().map_err(|e| failed(path, version, &e.into()))?;
    empty_log(path, conn, config);
    log::info!(
        "{db} has version {VERSION} of its schema after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The file as it is in the transaction that is open; it has no name of its own yet.
fn copy_of<'a>(conn: &Connection, db: &Path, to: &'a Path, bytes: u64) -> Result<NewFile<'a>> {
    let no_room = |e: Error| {
        let why = format!(
            "no copy of it can be kept, so it is not upgraded: {e} (make room, or serve it with \
             upgrade_copy of false)"
        );
        unusable(db, &why)
    };
    disk::require(db.parent().unwrap_or(Path::new("/")), bytes).map_err(no_room)?;
    let file = unfinished(db)?;
    set_owner(file.path(), db)?;
    copy::copy_in_transaction(conn, file.path()).map_err(no_room)?;
    Ok(NewFile::of(to, file))
}

/// A file that is removed unless it gets a name. Its name now is always the same, so that one which a kill has
/// left is in the way of nothing, and gone after the next upgrade.
fn unfinished(db: &Path) -> Result<NamedTempFile> {
    let path = beside(db, ".upgrade-partial");
    for suffix in ["", "-journal", "-wal", "-shm"] {
        remove(&beside(&path, suffix))?;
    }
    let create = || {
        let file =
            File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(NamedTempFile::from_parts(file, TempPath::try_from_path(&path)?))
    };
    create().map_err(|e: io::Error| unusable(&path, &e))
}

/// Leaves everything in the file, where that is ours to do. What is committed is so in the log too.
fn empty_log(path: &Path, conn: &Connection, config: &Config) {
    if config.checkpoint_bytes == 0 {
        return;
    }
    let emptied = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = emptied {
        log::warn!("the log of {} is not brought into the file: {error}", path.display());
    }
}

/// SQLite does not tell which disk is full.
fn failed(path: &Path, version: i32, error: &Error) -> Error {
    let room = match error {
        Error::Unavailable(_) => {
            ". It takes as much room again as the file has for its log, and as much in the directory of SQLite's \
             temporary files (the variable SQLITE_TMPDIR, or else /var/tmp)"
        }
        _ => "",
    };
    let why = format!(
        "it could not be brought from version {version} of its schema to {VERSION}, and is as it was: {error}{room}"
    );
    unusable(path, &why)
}
