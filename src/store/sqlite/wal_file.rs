//! The write-ahead log as a file: is it whole, and of which database is it.
//!
//! SQLite replays any log that is whole in itself into the file beside it. So a database that was put
//! over the file of a killed server, its log left there, becomes a mixture of both. The table `file_state`
//! tells: its `state` is numbered anew in the first transaction of a log and just before a checkpoint, so a
//! log holds each number that its file can have. (The format: <https://sqlite.org/walformat.html>.)

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::error::Result;
use crate::store::sqlite::file::unusable;
use crate::store::sqlite::sql;

/// A number that a state of the database has.
pub type State = [u8; 16];

/// The state of a file from before there was a `file_state`.
pub const NO_STATE: State = [0; 16];

/// `mark` of `file_state`, which `state` and `base` follow in its record.
const MARK: &[u8; 16] = b"billstream-state";

pub const HEADER_BYTES: usize = 32;
pub const FRAME_HEADER_BYTES: usize = 24;

/// A file beside the database: `beside(path, "-wal")`.
pub fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What is in a log.
#[derive(Debug, Default)]
pub struct Log {
    /// Frames that are whole, each with all before it.
    pub frames: u32,
    /// The states that the frames tell of.
    pub states: Vec<State>,
}

impl Log {
    /// Reads a log up to the first frame that is not whole. One without a header has no frames.
    pub fn read(path: &Path) -> io::Result<Log> {
        let mut log = Log::default();
        let input = BufReader::with_capacity(1 << 16, File::open(path)?);
        let Some(mut chain) = Chain::open(input)? else {
            return Ok(log);
        };
        while let Some(page) = chain.next()? {
            log.frames += 1;
            push_states(page, &mut log.states);
        }
        Ok(log)
    }
}

fn push_states(page: &[u8], states: &mut Vec<State>) {
    let marks = page.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    for (at, _) in marks {
        let numbers = page[at + MARK.len()..].chunks_exact(16).take(2);
        // OK because a chunk has 16 bytes.
        states.extend(numbers.map(|number| State::try_from(number).expect("16 bytes")));
    }
}

/// The frames of a log, each held to the checksum over all before it.
struct Chain<R> {
    input: R,
    salts: [u8; 8],
    checksum: [u32; 2],
    is_big_endian: bool,
    frame: Vec<u8>,
}

impl<R: Read> Chain<R> {
    fn open(mut input: R) -> io::Result<Option<Chain<R>>> {
        let mut header = Vec::new();
        input.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header)?;
        if !is_header(&header) {
            return Ok(None);
        }
        let is_big_endian = header[3] & 1 == 1;
        let checksum = checksum([0, 0], &header[..24], is_big_endian);
        let is_whole = checksum == [word(&header, 24), word(&header, 28)];
        let page_bytes = word(&header, 8) as usize;
        Ok((is_whole && (512..=65_536).contains(&page_bytes)).then(|| Chain {
            input,
            // OK because the header has these bytes.
            salts: header[16..24].try_into().expect("8 bytes"),
            checksum,
            is_big_endian,
            frame: vec![0; FRAME_HEADER_BYTES + page_bytes],
        }))
    }

    /// The page of the next frame.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        match self.input.read_exact(&mut self.frame) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (header, page) = self.frame.split_at(FRAME_HEADER_BYTES);
        let number = checksum(self.checksum, &header[..8], self.is_big_endian);
        self.checksum = checksum(number, page, self.is_big_endian);
        let is_whole =
            header[8..16] == self.salts && self.checksum == [word(header, 16), word(header, 20)];
        Ok(is_whole.then_some(page))
    }
}

/// Whether a log begins with these bytes.
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES && word(bytes, 0) & !1 == 0x377f_0682
}

/// The big-endian number at a place.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    // OK because the callers have looked at the length.
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// SQLite's checksum over pairs of words, begun with that of what came before.
fn checksum([mut a, mut b]: [u32; 2], bytes: &[u8], is_big_endian: bool) -> [u32; 2] {
    for pair in bytes.chunks_exact(8) {
        let (first, second) = (word(pair, 0), word(pair, 4));
        let native = |word: u32| if is_big_endian { word } else { word.swap_bytes() };
        a = a.wrapping_add(native(first)).wrapping_add(b);
        b = b.wrapping_add(native(second)).wrapping_add(a);
    }
    [a, b]
}

/// The state of the file alone, without its log; `None` where the file does not tell: in the middle of a
/// checkpoint it need not be a database.
pub fn state_of(db: &Path) -> Option<State> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(immutable(db), flags).ok()?;
    let version: i32 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).ok()?;
    if version < 2 {
        return Some(NO_STATE);
    }
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
    let (mark, state) = conn.query_row(sql::FILE_STATE, [], row).ok()?;
    (mark.as_bytes() == MARK).then_some(state)
}

/// A URI by which SQLite looks neither at the log nor at locks.
pub fn immutable(db: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    let escaped = db.as_os_str().as_bytes().iter().map(|&byte| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    format!("file:{}?immutable=1", escaped.collect::<String>())
}

/// Refuses a database with the log of another one beside it, which SQLite would replay into it.
pub fn refuse_foreign(db: &Path) -> Result<()> {
    // A server that has it may begin its log anew between two looks.
    let is_foreign = || is_foreign(db).map_err(|e| unusable(db, &e));
    for _ in 0..3 {
        if !is_foreign()? {
            return Ok(());
        }
    }
    let (db_name, log) = (db.display(), beside(db, "-wal"));
    let why = format!(
        "the log beside it is not of this file, but of one that was here before: a copy must have been put in \
         its place. To have the copy: `mv {log} {log}.old`, or `billstream restore --from COPY --db \
         {db_name}`. To have what the log is of: put back the file that was here",
        log = log.display()
    );
    Err(unusable(db, &why))
}

/// The size in bytes of a log that SQLite passes over in silence, since its header is not whole.
pub fn headless(db: &Path) -> io::Result<Option<u64>> {
    let path = beside(db, "-wal");
    if !path.exists() {
        return Ok(None);
    }
    let log = File::open(path)?;
    let bytes = log.metadata()?.len();
    Ok((bytes > 0 && Chain::open(log)?.is_none()).then_some(bytes))
}

/// Whether the log tells of states, and none is the file's.
pub fn is_foreign(db: &Path) -> io::Result<bool> {
    let path = beside(db, "-wal");
    if !path.exists() {
        return Ok(false);
    }
    // First, because a server that has it may begin a new log meanwhile.
    let state = state_of(db);
    let log = Log::read(&path)?;
    Ok(!log.states.is_empty() && state.is_some_and(|state| !log.states.contains(&state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// A database whose log holds `commits` transactions.
    fn database(dir: &Path, commits: usize) -> (PathBuf, Connection) {
        let db = dir.join("a db%20?#.db");
        let conn = Connection::open(&db).unwrap();
        conn.pragma_update(None, "journal_mode", "wal").unwrap();
        crate::store::sqlite::sql::MIGRATIONS
            .iter()
            .for_each(|sql| conn.execute_batch(sql).unwrap());
        conn.pragma_update(None, "user_version", 2).unwrap();
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        for _ in 0..commits {
            conn.query_row(sql::RENEW_FILE_STATE, [], |_| Ok(())).unwrap();
        }
        (db, conn)
    }

    #[test]
    fn a_log_tells_of_its_states_as_far_as_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (db, _conn) = database(dir.path(), 5);
        let path = beside(&db, "-wal");
        let log = Log::read(&path).unwrap();
        assert_eq!((log.frames, log.states.len()), (5, 10));
        let state = state_of(&db).unwrap();
        // The base of the first; the log alone has the later ones.
        assert_eq!(log.states[1], state);
        assert!(!is_foreign(&db).unwrap());
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[1], HEADER_BYTES as u64 + 3 * (4096 + 24) + 1000).unwrap();
        assert_eq!(Log::read(&path).unwrap().frames, 3);
        file.set_len(HEADER_BYTES as u64 + 4096).unwrap();
        assert_eq!(Log::read(&path).unwrap().frames, 0);
        assert_eq!(headless(&db).unwrap(), None);
        file.write_all_at(&[1], 9).unwrap();
        assert_eq!(headless(&db).unwrap(), Some(HEADER_BYTES as u64 + 4096));
        assert_eq!(Log::read(&path).unwrap().frames, 0);
    }

    #[test]
    fn a_log_is_foreign_to_any_other_state() {
        let dir = tempfile::tempdir().unwrap();
        let (db, conn) = database(dir.path(), 2);
        let log = std::fs::read(beside(&db, "-wal")).unwrap();
        // The file of the last state of the log is one of its files, as is that of the first.
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        std::fs::write(beside(&db, "-wal"), &log).unwrap();
        assert!(!is_foreign(&db).unwrap());
        drop(conn);
        let (db, conn) = database(tempfile::tempdir().unwrap().keep().as_path(), 0);
        drop(conn);
        std::fs::write(beside(&db, "-wal"), &log).unwrap();
        assert!(is_foreign(&db).unwrap());
        assert!(refuse_foreign(&db).is_err());
        std::fs::remove_dir_all(db.parent().unwrap()).unwrap();
    }
}
