//! Opening the database: is it ours, is it free, is it of this version.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::config::{Config, Synchronous};
use crate::error::{Error, Result};
use crate::store::sql::MIGRATIONS;

/// "bill" in SQLite's header: the file is a billstream database.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"bill");

/// The size of SQLite's header, with the ids of the program and of the schema.
const HEADER_BYTES: usize = 100;

/// The version of the schema that this program knows.
const VERSION: i32 = MIGRATIONS.len() as i32;

/// The mark of the one server of a database, for as long as it is held.
///
/// It is an advisory lock on an empty file beside the database. (On the database file itself it
/// would harm: closing any descriptor of that file ends the process's SQLite locks on it.)
pub struct ServerLock {
    _file: File,
    path: PathBuf,
}

impl ServerLock {
    /// Leaves no trace beside a file that is not ours.
    fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Opens the database for writing, creates or upgrades it, and takes the server's lock.
/// A file that cannot be served is left as it is.
pub fn open_writer(config: &Config) -> Result<(Connection, PathBuf, ServerLock)> {
    let path = resolve(&config.db)?;
    // First, so that no server of this process has the file open when its header is read.
    let lock = lock(&path)?;
    if path.exists() {
        if let Err(error) = refuse_foreign(&path) {
            lock.remove();
            return Err(error);
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(&path, flags).map_err(|e| unusable(&path, &e))?;
    prepare(&mut conn, config).map_err(|e| match e {
        Error::Unusable(message) => Error::Unusable(message),
        other => unusable(&path, &other),
    })?;
    Ok((conn, path, lock))
}

/// Opens a database that is ours for reading alone, whether a server has it or not.
pub fn open_reader(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(unusable(path, &"there is no such file"));
    }
    let path = resolve(path)?;
    // With write access to the file, so that a log left by a killed server can be read; `query_only`
    // keeps it from being changed.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(|e| unusable(&path, &e))?;
    conn.pragma_update(None, "query_only", true).map_err(|e| unusable(&path, &e))?;
    refuse(pragma(&conn, "application_id", &path)?, pragma(&conn, "user_version", &path)?, &path)?;
    Ok(conn)
}

fn pragma(conn: &Connection, name: &str, path: &Path) -> Result<i32> {
    conn.pragma_query_value(None, name, |row| row.get(0)).map_err(|error| {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => unusable(path, &NOT_SQLITE),
            _ => unusable(path, &error),
        }
    })
}

/// Sets what every connection needs. The busy timeout is first: the others may wait for a lock.
pub fn set_pragmas(conn: &Connection, config: &Config) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_millis(config.busy_timeout_ms))?;
    conn.pragma_update(None, "cache_size", kib(config.cache_bytes))?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// SQLite takes KiB as a negative number.
fn kib(bytes: usize) -> i64 {
    -i64::try_from(bytes / 1024).unwrap_or(i64::MAX)
}

/// The path with its directory resolved, so that one file has one lock whatever it is called.
fn resolve(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return Err(unusable(path, &"it is a directory; name a file"));
    }
    if path.exists() {
        return path.canonicalize().map_err(|e| unusable(path, &e));
    }
    let name = path.file_name().ok_or_else(|| unusable(path, &"it names no file"))?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(|e| unusable(parent, &e))?;
    Ok(parent.join(name))
}

/// Looks at the header alone, without SQLite: nothing is touched, and a file whose server was killed
/// in the middle of a checkpoint is no fault as long as its log is there.
fn refuse_foreign(path: &Path) -> Result<()> {
    let mut header = Vec::new();
    let file = File::open(path).map_err(|e| unusable(path, &e))?;
    file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(|e| unusable(path, &e))?;
    if header.is_empty() {
        return Ok(());
    }
    if header.len() < HEADER_BYTES || !header.starts_with(b"SQLite format 3\0") {
        return Err(unusable(path, &NOT_SQLITE));
    }
    // OK because the header is longer than these places.
    let i32_at = |at| i32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    refuse(i32_at(68), i32_at(60), path)
}

const NOT_SQLITE: &str = "it is not a SQLite database";

/// Refuses a database of another program, and one whose schema is newer than this program.
fn refuse(application_id: i32, user_version: i32, path: &Path) -> Result<()> {
    if application_id != APPLICATION_ID {
        return Err(unusable(path, &"it is a SQLite database of another program"));
    }
    if user_version > VERSION {
        let message = format!(
            "its schema has version {user_version}, and this program knows up to {VERSION}: it was \
             written by a newer billstream"
        );
        return Err(unusable(path, &message));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<ServerLock> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&name)
        .map_err(|e| unusable(Path::new(&name), &e))?;
    match file.try_lock() {
        Ok(()) => Ok(ServerLock { _file: file, path: name.into() }),
        Err(TryLockError::WouldBlock) => Err(unusable(path, &"another server is serving it")),
        Err(TryLockError::Error(e)) => Err(unusable(Path::new(&name), &e)),
    }
}

/// Brings a database that is ours, or new, to this version. `application_id` is on disk before
/// WAL is switched on: a header in the log alone would not be seen by [`refuse_foreign`].
fn prepare(conn: &mut Connection, config: &Config) -> Result<()> {
    set_pragmas(conn, config)?;
    let path = conn.path().unwrap_or_default().to_owned();
    // With what the log says, where the header did not.
    let version = pragma(conn, "user_version", Path::new(&path))?;
    refuse(APPLICATION_ID, version, Path::new(&path))?;
    if version < VERSION {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for script in &MIGRATIONS[version as usize..] {
            transaction.execute_batch(script)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    let mode: String =
        conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Error::Unusable(format!("{path}: this file system has no write-ahead log")));
    }
    let synchronous = match config.synchronous {
        Synchronous::Full => "full",
        Synchronous::Normal => "normal",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "cache_size", kib(config.writer_cache_bytes))?;
    let page_bytes: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let checkpoint_bytes = i64::try_from(config.checkpoint_bytes).unwrap_or(i64::MAX);
    conn.pragma_update(None, "wal_autocheckpoint", (checkpoint_bytes / page_bytes).max(1))?;
    // `totals` does their work.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    Ok(())
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Unusable(format!("cannot use the database {}: {why}", path.display()))
}
