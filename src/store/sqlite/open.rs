//! Opening the database: is it ours, is it of this version.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::vtab::array;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::config::{Config, Synchronous};
use crate::error::{Error, Result};
use crate::store::sqlite::file::{resolve, unusable, DatabaseFile, HEADER_BYTES};
use crate::store::sqlite::upgrade::{migrate, upgrade, APPLICATION_ID, VERSION};
use crate::store::sqlite::wal_file;

/// Opens the database for writing, creates or upgrades it, and takes it for the server. A file that cannot
/// be served is left as it is. (The connection is to be dropped before the file.)
pub fn open_writer(config: &Config) -> Result<(DatabaseFile, Connection)> {
    let mut file = DatabaseFile::take(&config.db)?;
    file.create_if_missing(create)?;
    refuse_header(&file)?;
    let path = file.path();
    wal_file::refuse_foreign(path)?;
    if let Some(bytes) = wal_file::headless(path).map_err(|e| unusable(path, &e))? {
        let log = wal_file::beside(path, "-wal");
        log::warn!(
            "{} begins with no whole header: its {bytes} bytes are passed over",
            log.display()
        );
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(|e| unusable(path, &e))?;
    prepare(&mut conn, config).map_err(|e| match e {
        Error::Unusable(message) => Error::Unusable(message),
        other => unusable(path, &other),
    })?;
    Ok((file, conn))
}

/// Makes a new database: a whole one, so that a kill leaves either nothing or that.
fn create(path: &Path) -> Result<()> {
    let mut conn = Connection::open(path).map_err(|e| unusable(path, &e))?;
    let transaction = conn.transaction()?;
    migrate(&transaction, 0)?;
    Ok(transaction.commit()?)
}

/// Opens a database that is ours for reading alone, whether a server has it or not.
pub fn open_reader(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(unusable(path, &"there is no such file"));
    }
    if path.is_dir() {
        return Err(unusable(path, &"it is a directory; name a file"));
    }
    let path = resolve(path)?;
    // Before SQLite has it, which at its end would put the log into the file.
    wal_file::refuse_foreign(&path)?;
    // With write access to the file, so that a log left by a killed server can be read; `query_only`
    // keeps it from being changed.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(|e| unusable(&path, &e))?;
    conn.pragma_update(None, "query_only", true).map_err(|e| unusable(&path, &e))?;
    refuse_other_program(&conn, &path)?;
    Ok(conn)
}

/// Refuses what SQLite can open but this program does not know.
pub fn refuse_other_program(conn: &Connection, path: &Path) -> Result<()> {
    refuse(pragma(conn, "application_id", path)?, pragma(conn, "user_version", path)?, path)
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

/// Looks at the header alone, without SQLite: nothing is touched, and a file whose server was killed
/// in the middle of a checkpoint is no fault as long as its log is there.
fn refuse_header(file: &DatabaseFile) -> Result<()> {
    let (header, path) = (file.header()?, file.path());
    if header.len() < HEADER_BYTES || !header.starts_with(SQLITE_MAGIC) {
        return Err(unusable(path, &NOT_SQLITE));
    }
    // OK because the header is longer than these places.
    let i32_at = |at| i32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    refuse(i32_at(68), i32_at(60), path)
}

/// What every database of SQLite begins with.
pub const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

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

/// Brings a database that is ours to this version. `application_id` is on disk before WAL is switched on:
/// a header in the log alone would not be seen by [`refuse_header`].
fn prepare(conn: &mut Connection, config: &Config) -> Result<()> {
    set_pragmas(conn, config)?;
    let path = conn.path().unwrap_or_default().to_owned();
    // With what the log says, where the header did not.
    let version = pragma(conn, "user_version", Path::new(&path))?;
    refuse(APPLICATION_ID, version, Path::new(&path))?;
    let mode: String =
        conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Error::Unusable(format!("{path}: this file system has no write-ahead log")));
    }
    // `wal` does it, between two commits.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    if version < VERSION {
        upgrade(Path::new(&path), conn, config, version)?;
    }
    let synchronous = match config.synchronous {
        Synchronous::Full => "full",
        Synchronous::Normal => "normal",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "cache_size", kib(config.writer_cache_bytes))?;
    // Arrays as parameters, for `reconcile`.
    array::load_module(conn)?;
    // `totals` does their work.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    Ok(())
}
