//! What an error of SQLite means to a caller.

use rusqlite::ffi;
use rusqlite::ErrorCode;

use crate::error::Error;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let rusqlite::Error::SqliteFailure(failure, _) = &error else {
            return Error::Internal(format!("SQLite: {error}"));
        };
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                Error::Unavailable("the database is locked by another process".to_owned())
            }
            ErrorCode::DiskFull => Error::Unavailable("the disk is full".to_owned()),
            // A quota shows as a failed write, where a full disk has its own code.
            ErrorCode::SystemIoFailure if is_write(failure.extended_code) => {
                Error::Unavailable("the database cannot be written".to_owned())
            }
            ErrorCode::ReadOnly => Error::Unavailable("the database is read-only".to_owned()),
            _ => Error::Internal(format!("SQLite: {error}")),
        }
    }
}

fn is_write(extended_code: i32) -> bool {
    matches!(
        extended_code,
        ffi::SQLITE_IOERR_WRITE
            | ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_DIR_FSYNC
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_SHMSIZE
    )
}

/// Whether a UNIQUE constraint refused the row.
pub fn is_taken(error: &rusqlite::Error) -> bool {
    extended_code(error) == Some(ffi::SQLITE_CONSTRAINT_UNIQUE)
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|failure| failure.extended_code)
}
