//! Opening the database: is it ours, is it free, is it of this version.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::config::{Config, Synchronous};
use crate::error::{Error, Result};
use crate::store::sql::MIGRATIONS;

/// "bill" in SQLite's header: the file is a billstream database.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"bill");

/// The version of the schema that this program knows.
const VERSION: i32 = MIGRATIONS.len() as i32;

/// The mark of the one server of a database, for as long as it is held.
///
/// It is an advisory lock on an empty file beside the database. (On the database file itself it
/// would harm: closing any descriptor of that file ends the process's SQLite locks on it.)
pub struct ServerLock {
    _file: File,
}

/// Opens the database for writing, creates or upgrades it, and takes the server's lock.
/// A file that cannot be served is left as it is.
pub fn open_writer(config: &Config) -> Result<(Connection, PathBuf, ServerLock)> {
    let path = resolve(&config.db)?;
    if path.exists() {
        refuse_foreign(&path)?;
    }
    let lock = lock(&path)?;
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
    refuse_foreign(&path)?;
    // With write access to the file, so that a log left by a killed server can be read; `query_only`
    // keeps it from being changed.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(|e| unusable(&path, &e))?;
    conn.pragma_update(None, "query_only", true).map_err(|e| unusable(&path, &e))?;
    Ok(conn)
}

/// Sets what every connection needs. The busy timeout is first: the others may wait for a lock.
pub fn set_pragmas(conn: &Connection, config: &Config) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_millis(config.busy_timeout_ms))?;
    // SQLite takes KiB as a negative number.
    let cache_kib = i64::try_from(config.cache_bytes / 1024).unwrap_or(i64::MAX);
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(())
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

/// Looks at the header without a lock, a log or a journal: nothing is touched.
fn refuse_foreign(path: &Path) -> Result<()> {
    if path.metadata().map_err(|e| unusable(path, &e))?.len() == 0 {
        return Ok(());
    }
    let conn = open_immutable(path).map_err(|e| unusable(path, &e))?;
    let id: i32 = match conn.pragma_query_value(None, "application_id", |row| row.get(0)) {
        Ok(id) => id,
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(unusable(path, &"it is not a SQLite database"));
        }
        Err(e) => return Err(unusable(path, &e)),
    };
    if id != APPLICATION_ID {
        return Err(unusable(path, &"it is a SQLite database of another program"));
    }
    refuse_newer(&conn, path).map(|_| ())
}

/// The version of the schema, which must not be newer than this program.
fn refuse_newer(conn: &Connection, path: &Path) -> Result<i32> {
    let version: i32 = conn
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|e| unusable(path, &e))?;
    if version > VERSION {
        let message = format!(
            "its schema has version {version}, and this program knows up to {VERSION}: it was \
             written by a newer billstream"
        );
        return Err(unusable(path, &message));
    }
    Ok(version)
}

fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let escaped =
        path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
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
        Ok(()) => Ok(ServerLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(unusable(path, &"another server is serving it")),
        Err(TryLockError::Error(e)) => Err(unusable(Path::new(&name), &e)),
    }
}

/// Brings a database that is ours, or new, to this version. `application_id` is on disk before
/// WAL is switched on: a header in the log alone would not be seen by [`refuse_foreign`].
fn prepare(conn: &mut Connection, config: &Config) -> Result<()> {
    set_pragmas(conn, config)?;
    let path = conn.path().unwrap_or_default().to_owned();
    let version = refuse_newer(conn, Path::new(&path))?;
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
    // What a savepoint saves goes to a file when it is large: in memory, the end of every statement
    // inside the savepoint would walk all of it.
    conn.pragma_update(None, "temp_store", "file")?;
    Ok(())
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Unusable(format!("cannot use the database {}: {why}", path.display()))
}
