//! While the database is served: are the file and its log still the ones at their paths, and as SQLite left
//! them. What is written to a file that was moved, or behind a part of the log that is gone, is lost with
//! the process; so it is looked at after each commit, before anything of it is acknowledged.
//!
//! SQLite tells in its wal-index, the file `-shm`, how far the log goes and how it ends. (The format:
//! <https://sqlite.org/walformat.html#the_wal_index_file_format>.) Another process may lawfully write to the
//! database, and copy the log into it: what has changed is no fault as long as it is whole.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rusqlite::Connection;

use crate::error::Error;
use crate::store::sqlite::file::{DatabaseFile, Identity};
use crate::store::sqlite::open::SQLITE_MAGIC;
use crate::store::sqlite::wal_file::{self, beside, Log, State, FRAME_HEADER_BYTES, HEADER_BYTES};

/// The database with its log and its wal-index, as this process has them open.
pub struct Guard {
    db: Watched,
    log: Watched,
    index: Watched,
    /// The state that `file_state` has.
    pub state: State,
    /// The salts of the log that has a mark of [`wal_file`], where it is known to have one.
    pub marked: Option<[u8; 8]>,
}

/// A file that is to stay where it is.
struct Watched {
    path: PathBuf,
    file: File,
    identity: Identity,
    /// The size in bytes and the time of the last change, as they were left by whoever may change it.
    left: (u64, i64, i64),
}

/// Why no write can be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A file is not at its path; it may come back.
    Moved(String),
    /// A file cannot be read for now.
    Unreadable(String),
    /// What was in a file is gone.
    Damaged(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Moved(what) => write!(f, "{what} (until it is back, or a restart)"),
            Fault::Unreadable(what) => write!(f, "{what} (until it can be)"),
            Fault::Damaged(what) => write!(f, "{what} (until a restart)"),
        }
    }
}

/// Whether SQLite has found the file malformed, and how; shared by all who read it and the one who writes it.
#[derive(Clone, Debug, Default)]
pub struct Malformed(Arc<OnceLock<String>>);

impl Malformed {
    /// To be called with each error of the database: the first that tells of it stays.
    pub fn note(&self, error: &Error) {
        if let Error::Malformed(why) = error {
            self.0.get_or_init(|| format!("the database file is malformed: {why}"));
        }
    }

    pub fn fault(&self) -> Option<Fault> {
        self.0.get().cloned().map(Fault::Damaged)
    }
}

type Verdict = std::result::Result<(), Fault>;

impl Watched {
    fn open(path: PathBuf) -> io::Result<Watched> {
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        Ok(Watched { path, file, identity: Identity::of(&metadata), left: change(&metadata) })
    }

    /// The file at the path, which is this one.
    fn look(&self) -> std::result::Result<Metadata, Fault> {
        let moved = |why: String| Err(Fault::Moved(format!("{} {why}", self.path.display())));
        match self.path.metadata() {
            Err(error) => moved(format!("is not there any more: {error}")),
            Ok(it) if Identity::of(&it) != self.identity => moved("was replaced".to_owned()),
            Ok(it) if it.nlink() > 1 => moved("has a second name (a hard link)".to_owned()),
            Ok(it) => Ok(it),
        }
    }

    /// A disk that fails may work again; an end that came too early stays.
    fn unreadable(&self, error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("was cut"),
            _ => Fault::Unreadable(format!("{} cannot be read: {error}", self.path.display())),
        }
    }

    fn damaged(&self, how: &str) -> Fault {
        Fault::Damaged(format!("{} {how}", self.path.display()))
    }
}

fn change(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// What the wal-index tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Frames of the log.
    pub frames: u32,
    /// Those of them that are in the database file.
    pub copied: u32,
    pub page_bytes: u64,
    /// Pages of the database.
    pages: u32,
    /// Of the last frame.
    checksum: [u32; 2],
    pub salts: [u8; 8],
}

impl Index {
    /// The size in bytes that the log needs.
    pub fn log_bytes(&self) -> u64 {
        match self.frames {
            0 => 0,
            frames => HEADER_BYTES as u64 + u64::from(frames) * self.frame_bytes(),
        }
    }

    fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + self.page_bytes
    }
}

impl Guard {
    /// To be called when `conn` has read the database, so that all its files are there.
    pub fn new(db: &DatabaseFile, conn: &Connection) -> crate::error::Result<Guard> {
        let open = |suffix: &str| {
            let path = beside(db.path(), suffix);
            Watched::open(path.clone()).map_err(|e| crate::store::sqlite::file::unusable(&path, &e))
        };
        let state = conn.query_row(crate::store::sqlite::sql::FILE_STATE, [], |row| row.get(1))?;
        Ok(Guard { db: open("")?, log: open("-wal")?, index: open("-shm")?, state, marked: None })
    }

    /// In a transaction, before it writes: nobody but SQLite has changed the log and the database since
    /// they were left. (With the lock on writing, neither log nor wal-index changes under the look.)
    pub fn check_begun(&mut self) -> std::result::Result<Index, Fault> {
        let (db, log) = (self.db.look()?, self.log.look()?);
        self.index.look()?;
        let index = self.index()?;
        if change(&log) != self.log.left {
            self.check_whole_log(&index)?;
            self.log.left = change(&log);
        }
        if change(&db) != self.db.left {
            self.check_database(&db, &index)?;
            self.db.left = change(&db);
        }
        Ok(index)
    }

    /// After a commit: what it wrote is at the end of the log that is at its path.
    pub fn check_committed(&mut self) -> std::result::Result<Index, Fault> {
        let db = self.db.look()?;
        let log = self.log.look()?;
        let index = self.index()?;
        self.check_log(&log, &index)?;
        self.log.left = change(&log);
        if db.len() < self.least_bytes(&index) {
            return Err(self.db.damaged("was cut"));
        }
        Ok(index)
    }

    /// Reads of the file, and brings it and its log to the disk, where they are. Where all is there it costs no
    /// write; but it fails where an earlier write has failed unseen, or the file system takes no more.
    pub fn sync(&self) -> io::Result<()> {
        self.db.file.read_exact_at(&mut [0; SQLITE_MAGIC.len()], 0)?;
        self.db.file.sync_data().and_then(|()| self.log.file.sync_data())
    }

    /// Before a rollback, with the lock on writing: a large transaction has put frames into the log, behind
    /// what the wal-index tells of. Anything else that is new there is for the next look.
    pub fn rolling_back(&mut self) {
        let looked =
            self.log.look().and_then(|log| self.check_log(&log, &self.index()?).map(|()| log));
        if let Ok(log) = looked {
            self.log.left = change(&log);
        }
    }

    /// The log was copied into the database: both were changed by SQLite.
    pub fn checkpointed(&mut self) {
        for watched in [&mut self.db, &mut self.log] {
            if let Ok(metadata) = watched.file.metadata() {
                watched.left = change(&metadata);
            }
        }
    }

    #[cfg(test)]
    pub fn is_log_as_left(&self) -> bool {
        self.log.file.metadata().is_ok_and(|file| change(&file) == self.log.left)
    }

    /// The size of the log's file, of which the log may be a part.
    pub fn log_file_bytes(&self) -> u64 {
        self.log.file.metadata().map_or(0, |file| file.len())
    }

    /// The wal-index, where nobody is writing it.
    pub fn index(&self) -> std::result::Result<Index, Fault> {
        let mut bytes = [0; 100];
        self.index.file.read_exact_at(&mut bytes, 0).map_err(|e| self.index.unreadable(e))?;
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let page_bytes = u16::from_ne_bytes([bytes[14], bytes[15]]);
        Ok(Index {
            frames: u32_at(16),
            copied: u32_at(96),
            // 65,536 does not fit.
            page_bytes: if page_bytes == 1 { 65_536 } else { page_bytes.into() },
            pages: u32_at(20),
            checksum: [u32_at(24), u32_at(28)],
            salts: bytes[32..40].try_into().expect("8 bytes"),
        })
    }

    /// Its beginning and its end are those that the wal-index tells of.
    fn check_log(&self, log: &Metadata, index: &Index) -> Verdict {
        if index.frames == 0 {
            return Ok(());
        }
        if log.len() < index.log_bytes() {
            return Err(self.log.damaged("was cut"));
        }
        let (mut header, mut frame) = ([0; HEADER_BYTES], [0; FRAME_HEADER_BYTES]);
        let last = index.log_bytes() - index.frame_bytes();
        let read = self.log.file.read_exact_at(&mut header, 0);
        let read = read.and_then(|()| self.log.file.read_exact_at(&mut frame, last));
        read.map_err(|error| self.log.unreadable(error))?;
        let is_ours = wal_file::is_header(&header)
            && header[16..24] == index.salts
            && frame[8..16] == index.salts
            && [wal_file::word(&frame, 16), wal_file::word(&frame, 20)] == index.checksum;
        if is_ours {
            Ok(())
        } else {
            Err(self.log.damaged("was overwritten"))
        }
    }

    fn check_whole_log(&self, index: &Index) -> Verdict {
        let log = Log::read(&self.log.path).map_err(|error| self.log.unreadable(error))?;
        match log.frames {
            frames if frames < index.frames => Err(self.log.damaged("was cut or overwritten")),
            _ => Ok(()),
        }
    }

    /// It was changed by someone: by a copy of the log, or else it is another database now.
    fn check_database(&self, metadata: &Metadata, index: &Index) -> Verdict {
        let mut magic = [0; SQLITE_MAGIC.len()];
        self.db.file.read_exact_at(&mut magic, 0).map_err(|error| self.db.unreadable(error))?;
        if magic != *SQLITE_MAGIC || metadata.len() < self.least_bytes(index) {
            return Err(self.db.damaged("was cut or overwritten"));
        }
        let log = Log::read(&self.log.path).map_err(|error| self.log.unreadable(error))?;
        match wal_file::state_of(&self.db.path) {
            Some(state) if state != self.state && !log.states.contains(&state) => {
                Err(self.db.damaged("was overwritten by another database"))
            }
            _ => Ok(()),
        }
    }

    /// SQLite makes a database smaller only to the size that the wal-index tells.
    fn least_bytes(&self, index: &Index) -> u64 {
        self.db.left.0.min(u64::from(index.pages) * index.page_bytes)
    }
}
