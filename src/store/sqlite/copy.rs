//! Copies of a database: into a file of an operator, and for a client of a server.
//!
//! A copy is of one moment: its pages are read in one read transaction, so that it finishes however much is
//! written meanwhile, where SQLite would begin it anew after each commit of another connection. What that costs
//! is the write-ahead log, which cannot be emptied for so long.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::model::Filter;
use crate::stop::Stop;
use crate::store::disk;
use crate::store::sqlite::file::{sync_directory, temporary};
use crate::store::sqlite::maintain::check_connection;
use crate::store::sqlite::open::open_reader;
use crate::store::sqlite::read::in_transaction;
use crate::store::sqlite::restore::open_backup;
use crate::store::sqlite::{sql, summary, wal, Database};
use crate::store::Snapshot;

/// Pages between two looks whether to go on: a mebibyte.
const PAGES_A_STEP: i32 = 256;

/// Copies the database to the new file `to`, as of one moment; returns its size in bytes. The file has its
/// name when it is whole and on the disk. A server may have the database meanwhile.
/// [`check`](super::maintain::check) has an example.
///
/// # Errors
///
/// [`Error::Unusable`] where `db` is no database of ours, `to` exists, or it cannot be written.
pub fn backup(db: &Path, to: &Path) -> Result<u64> {
    let new = NewFile::create(to)?;
    let cannot = |e: &dyn std::fmt::Display| cannot_write(to, e);
    copy_database(&open_reader(db)?, new.path()).map_err(|e| cannot(&e))?;
    new.keep()
}

/// A file that has its name once it is whole, in a place where there is none yet.
pub struct NewFile<'a> {
    to: &'a Path,
    file: tempfile::NamedTempFile,
}

impl NewFile<'_> {
    pub fn create(to: &Path) -> Result<NewFile<'_>> {
        if to.exists() {
            return Err(exists(to));
        }
        Ok(NewFile { to, file: temporary(to, "partial")? })
    }

    /// The same of a file that is in the directory of `to`.
    pub fn of(to: &Path, file: tempfile::NamedTempFile) -> NewFile<'_> {
        NewFile { to, file }
    }

    /// Where it is until then.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn as_file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Brings it to the disk, and then to its name; returns its size in bytes.
    pub fn keep(self) -> Result<u64> {
        let NewFile { to, file } = self;
        file.as_file().sync_all().map_err(|e| cannot_write(to, &e))?;
        let bytes = file.as_file().metadata().map_err(|e| cannot_write(to, &e))?.len();
        file.persist_noclobber(to).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => exists(to),
            _ => cannot_write(to, &e.error),
        })?;
        sync_directory(to).map_err(|e| cannot_write(to, &e))?;
        Ok(bytes)
    }
}

fn exists(to: &Path) -> Error {
    Error::Unusable(format!("{} exists: name a new file", to.display()))
}

fn cannot_write(to: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Unusable(format!("cannot write {}: {why}", to.display()))
}

/// Whether a copy that came from elsewhere is sound and the one that was announced. It gets a state of its own.
///
/// # Errors
///
/// [`Error::Unusable`], with the first fault.
pub fn check_copy(path: &Path, announced: &Snapshot) -> Result<()> {
    let unsound = |why: &str| Error::Unusable(format!("the copy is not sound: {why}"));
    let report = check_connection(&open_backup(path)?)?;
    if let Some(fault) = report.faults.first() {
        return Err(unsound(fault));
    }
    if report.invoice_count != announced.invoice_count {
        let (is, was) = (report.invoice_count, announced.invoice_count);
        return Err(unsound(&format!("it has {is} invoices where {was} were announced")));
    }
    renew_state(&Connection::open(path)?)
}

/// Copies a database over an empty file, as one that needs no log and whose state is of no log there is.
pub fn copy_database(from: &Connection, to: &Path) -> Result<()> {
    in_transaction(from, |from| copy_in_transaction(from, to))
}

/// The same of the state that the open transaction of `from` reads.
pub fn copy_in_transaction(from: &Connection, to: &Path) -> Result<()> {
    let mut copy = Connection::open(to)?;
    copy_pages(from, &mut copy, |_| Ok(()))?;
    copy.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
    renew_state(&copy)
}

/// Numbers the state of a database anew.
pub fn renew_state(conn: &Connection) -> Result<()> {
    // A database of version 1 has none.
    if conn.table_exists(None, "file_state")? {
        conn.query_row(sql::RENEW_FILE_STATE, [], |_| Ok(()))?;
    }
    Ok(())
}

/// In a read transaction of `from`. `each` is told now and then how many bytes are copied, and may end it.
fn copy_pages(
    from: &Connection,
    to: &mut Connection,
    mut each: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    // A read transaction begins with its first read; one that a step began would end with the step.
    let page_bytes = number(from, "page_size")?;
    let copy = Backup::new(from, to)?;
    loop {
        let step = copy.step(PAGES_A_STEP)?;
        let progress = copy.progress();
        each((progress.pagecount - progress.remaining).unsigned_abs() as u64 * page_bytes)?;
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => return Err(Error::Unavailable("the database is locked".to_owned())),
        }
    }
}

/// The size of a database in bytes.
pub fn size(conn: &Connection) -> Result<u64> {
    Ok(number(conn, "page_count")? * number(conn, "page_size")?)
}

fn number(conn: &Connection, pragma: &str) -> Result<u64> {
    let number: i64 = conn.pragma_query_value(None, pragma, |row| row.get(0))?;
    Ok(number.unsigned_abs())
}

impl Database {
    /// Copies the database as it is now into a file without a name in `dir`, where that leaves `spare_bytes` of
    /// the disk free. `begun` is told what the copy will be, in the transaction that reads it.
    pub fn snapshot(
        &self,
        dir: &Path,
        spare_bytes: u64,
        stop: &Stop,
        begun: impl FnOnce(Snapshot) -> Result<()>,
    ) -> Result<File> {
        if self.metrics.file_faults.get() > 0 {
            return Err(Error::Unavailable(wal::FAULTY.to_owned()));
        }
        let _held = self.pressure.hold();
        self.reader.read_until(stop, |conn| {
            in_transaction(conn, |conn| {
                let snapshot = snapshot(conn)?;
                disk::require(dir, snapshot.bytes + spare_bytes)?;
                begun(snapshot)?;
                // The log, which is not emptied meanwhile, may be on another disk than the copy.
                let db = conn.path().and_then(|db| Path::new(db).parent()).unwrap_or(dir);
                copy_unnamed(conn, dir, |_| {
                    stop.check()?;
                    disk::require(db, spare_bytes)?;
                    disk::require(dir, spare_bytes)
                })
            })
        })
    }
}

fn snapshot(conn: &Connection) -> Result<Snapshot> {
    let summary = summary::summary(conn, &Filter::ALL)?;
    Ok(Snapshot {
        bytes: size(conn)?,
        invoice_count: summary.totals.iter().map(|total| total.sums.invoice_count).sum(),
        last_sequence: summary.last_sequence,
    })
}

/// Where the header of a database says whether it needs a log, to readers and to writers: 1 is no.
/// (<https://sqlite.org/fileformat.html#file_format_version_numbers>)
const FORMAT_VERSIONS: u64 = 18;

fn copy_unnamed(
    from: &Connection,
    dir: &Path,
    each: impl FnMut(u64) -> Result<()>,
) -> Result<File> {
    let file = tempfile::NamedTempFile::new_in(dir).map_err(cannot_copy)?;
    let mut copy = Connection::open(file.path())?;
    // With neither a journal nor a log nothing looks for its name again, so that a kill leaves no file.
    copy.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
    copy.pragma_update(None, "synchronous", "off")?;
    let file = file.into_file();
    copy_pages(from, &mut copy, each)?;
    copy.close().map_err(|(_, error)| error)?;
    file.write_all_at(&[1, 1], FORMAT_VERSIONS).map_err(cannot_copy)?;
    Ok(file)
}

fn cannot_copy(error: io::Error) -> Error {
    Error::Unavailable(format!("cannot make a copy: {error}"))
}
