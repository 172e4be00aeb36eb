//! What an error of SQLite means to a caller.

use rusqlite::ffi;
use rusqlite::ErrorCode;

use crate::error::Error;

/// What a lock of another process is to a caller.
pub const LOCKED: &str = "the database is locked by another process";

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let rusqlite::Error::SqliteFailure(failure, _) = &error else {
            return Error::Internal(format!("SQLite: {error}"));
        };
        if matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) {
            return Error::Malformed(format!("SQLite: {error} ({})", failure.extended_code));
        }
        match unavailable(failure) {
            Some(why) => Error::Unavailable(why.to_owned()),
            None => Error::Internal(format!("SQLite: {error} ({})", failure.extended_code)),
        }
    }
}

/// Why the database cannot be used for now; `None` for a fault of the database or of ours, with which
/// trying again is of no use. What was not acknowledged may be tried again: a commit that failed
/// changed nothing, and if it is found after a crash all the same, its ids tell.
fn unavailable(failure: &ffi::Error) -> Option<&'static str> {
    Some(match failure.extended_code {
        // What the file system found to be damaged.
        ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA => return None,
        ffi::SQLITE_IOERR_NOMEM => "there is no memory left",
        ffi::SQLITE_READONLY_DBMOVED => "the database is no longer the file at its path",
        _ => match failure.code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed => LOCKED,
            ErrorCode::DiskFull => "the disk is full",
            // A quota shows as a failed write, where a full disk has its own code.
            ErrorCode::SystemIoFailure => io_failure(failure.extended_code),
            ErrorCode::ReadOnly => "the database is read-only",
            ErrorCode::CannotOpen => "a file of the database cannot be opened",
            ErrorCode::OutOfMemory => "there is no memory left",
            ErrorCode::OperationInterrupted => "a statement was interrupted",
            _ => return None,
        },
    })
}

fn io_failure(extended_code: i32) -> &'static str {
    match extended_code {
        ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ => "the database cannot be read",
        ffi::SQLITE_IOERR_WRITE
        | ffi::SQLITE_IOERR_FSYNC
        | ffi::SQLITE_IOERR_DIR_FSYNC
        | ffi::SQLITE_IOERR_TRUNCATE
        | ffi::SQLITE_IOERR_SHMSIZE => "the database cannot be written",
        _ => "the disk of the database fails",
    }
}

/// Whether a UNIQUE constraint refused the row.
pub fn is_taken(error: &rusqlite::Error) -> bool {
    extended_code(error) == Some(ffi::SQLITE_CONSTRAINT_UNIQUE)
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|failure| failure.extended_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(extended_code: i32) -> Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None).into()
    }

    #[test]
    fn what_may_pass_is_unavailable() {
        let passing = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_RECOVERY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_PROTOCOL,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_SHORT_READ,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_DIR_FSYNC,
            ffi::SQLITE_IOERR_TRUNCATE,
            ffi::SQLITE_IOERR_FSTAT,
            ffi::SQLITE_IOERR_LOCK,
            ffi::SQLITE_IOERR_SHMOPEN,
            ffi::SQLITE_IOERR_SHMMAP,
            ffi::SQLITE_IOERR_NOMEM,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DBMOVED,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CANTOPEN_ISDIR,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_INTERRUPT,
        ];
        for code in passing {
            assert!(matches!(of(code), Error::Unavailable(_)), "{code}: {:?}", of(code));
        }
    }

    #[test]
    fn what_stays_is_a_fault_with_its_text_for_the_log() {
        let faults = [
            ffi::SQLITE_ERROR,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_CORRUPT_VTAB,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_IOERR_CORRUPTFS,
            ffi::SQLITE_IOERR_DATA,
            ffi::SQLITE_TOOBIG,
            ffi::SQLITE_CONSTRAINT_CHECK,
            ffi::SQLITE_MISUSE,
        ];
        for code in faults {
            let is_malformed = matches!(code & 0xff, ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB);
            let text = match of(code) {
                Error::Malformed(text) if is_malformed => text,
                Error::Internal(text) if !is_malformed => text,
                other => panic!("{code}: {other:?}"),
            };
            assert!(text.contains(&format!("({code})")), "{text}");
        }
    }
}
