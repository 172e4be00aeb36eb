//! The file that the database is: one file with one name and one server, whatever it is called.

use std::fs::{self, File, Metadata, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::store::sqlite::wal_file::beside;

/// A database file that this process alone serves or replaces, until it is dropped.
///
/// The mark of that is an advisory lock on the file itself. Closing any descriptor of a file ends the
/// process's SQLite locks on it, so this must be dropped after every connection.
#[derive(Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    /// `None` for a file that is not there yet.
    file: Option<File>,
    /// Of the file; see [`IN_PROCESS`].
    identity: Option<Identity>,
    lock: ServerLock,
    /// What was at the path before this start made a database there; `None` once it is to stay.
    made: Option<Before>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    EmptyFile,
}

/// A file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn of(metadata: &Metadata) -> Identity {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The files that this process serves: opening one of them again, to be refused by its lock, and closing
/// it would end the locks of the server that has it.
static IN_PROCESS: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

impl DatabaseFile {
    /// Takes the file at `path`. What is no database of ours or cannot be one file with one name is refused,
    /// and left as it is.
    pub fn take(path: &Path) -> Result<DatabaseFile> {
        let path = resolve(path)?;
        if path.exists() {
            refuse_other_names(&path)?;
        }
        let lock = ServerLock::take(&path)?;
        let mut taken = DatabaseFile { path, file: None, identity: None, lock, made: None };
        if taken.path.exists() {
            taken.open()?;
        }
        Ok(taken)
    }

    /// Has `create` make a new database under a temporary name, where there is none yet.
    pub fn create_if_missing(&mut self, create: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let is_there = self.file.is_some();
        if is_there && self.metadata()?.len() > 0 {
            return Ok(());
        }
        self.refuse_lost()?;
        let new = temporary(&self.path, "new")?;
        create(new.path())?;
        self.made = Some(if is_there { Before::EmptyFile } else { Before::Nothing });
        self.close();
        self.put(new)?;
        self.open()
    }

    /// Puts a whole file at the path, in the place of what is there. A kill leaves either.
    pub fn put(&self, new: tempfile::NamedTempFile) -> Result<()> {
        let unusable = |e: std::io::Error| unusable(&self.path, &e);
        new.as_file().sync_all().map_err(unusable)?;
        new.persist(&self.path).map_err(|e| unusable(e.error))?;
        sync_directory(&self.path).map_err(unusable)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file is now, under whatever name.
    pub fn metadata(&self) -> Result<Metadata> {
        let file = self.file.as_ref().map(File::metadata);
        file.unwrap_or_else(|| self.path.metadata()).map_err(|e| unusable(&self.path, &e))
    }

    /// The first bytes of the file, without a descriptor of its own.
    pub fn header(&self) -> Result<Vec<u8>> {
        let mut header = vec![0; HEADER_BYTES];
        let read = self.file.as_ref().map_or(Ok(0), |file| file.read_at(&mut header, 0));
        header.truncate(read.map_err(|e| unusable(&self.path, &e))?);
        Ok(header)
    }

    /// Leaves word, for programs that are refused, of where the database is served.
    pub fn tell(&self, addresses: &str) {
        // OK to fail: it is a help for people.
        let _ = self.lock.write(addresses);
    }

    /// The start has succeeded: what it made stays.
    pub fn keep(&mut self) {
        self.made = None;
        self.lock.is_made = false;
    }

    fn open(&mut self) -> Result<()> {
        let unusable = |e: std::io::Error| unusable(&self.path, &e);
        let identity = Identity::of(&self.path.metadata().map_err(unusable)?);
        if !enter(identity) {
            return Err(served(&self.path));
        }
        self.identity = Some(identity);
        let file = File::options().read(true).write(true).open(&self.path).map_err(unusable)?;
        let locked = file.try_lock();
        let file = self.file.insert(file);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(served(&self.path)),
            Err(TryLockError::Error(e)) => return Err(unusable(e)),
        }
        if Identity::of(&file.metadata().map_err(unusable)?) != identity {
            return Err(self::unusable(&self.path, &"it was replaced just now"));
        }
        Ok(())
    }

    fn close(&mut self) {
        self.file = None;
        if let Some(identity) = self.identity.take() {
            IN_PROCESS.lock().unwrap_or_else(|e| e.into_inner()).retain(|it| *it != identity);
        }
    }

    /// A file that was cut to nothing, or whose log alone is left, is not a new database.
    fn refuse_lost(&self) -> Result<()> {
        for suffix in ["-wal", "-journal"] {
            let log = beside(&self.path, suffix);
            if log.metadata().is_ok_and(|log| log.len() > 0) {
                let why = format!(
                    "it is empty or missing, but its log {} is there: put the database back, with \
                     `billstream restore` or by hand, or move the log away to begin anew",
                    log.display()
                );
                return Err(unusable(&self.path, &why));
            }
        }
        if self.file.is_some() && !self.lock.is_made {
            let why = format!(
                "it was cut to nothing: {} says that there was a database. Put it back (`billstream \
                 restore`), or remove both files to begin anew",
                self.lock.path.display()
            );
            return Err(unusable(&self.path, &why));
        }
        Ok(())
    }

    /// Leaves the directory as it was before a start that failed.
    fn unmake(&self, before: Before) -> std::io::Result<()> {
        for suffix in ["-wal", "-shm"] {
            let file = beside(&self.path, suffix);
            if file.exists() {
                fs::remove_file(file)?;
            }
        }
        match (before, &self.file) {
            (Before::EmptyFile, Some(file)) => file.set_len(0),
            _ => fs::remove_file(&self.path),
        }
    }
}

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.made.map(|before| self.unmake(before)) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
        self.close();
    }
}

fn enter(identity: Identity) -> bool {
    let mut files = IN_PROCESS.lock().unwrap_or_else(|e| e.into_inner());
    let is_free = !files.contains(&identity);
    if is_free {
        files.push(identity);
    }
    is_free
}

/// A lock on a file beside the database, which servers of version 0.1 know alone. It stays where it is, for
/// the next start; see [`DatabaseFile::refuse_lost`]. Who holds it writes into it where the database is served.
#[derive(Debug)]
struct ServerLock {
    path: PathBuf,
    file: File,
    /// Whether this start made it, and may yet fail.
    is_made: bool,
}

impl ServerLock {
    fn take(db: &Path) -> Result<ServerLock> {
        let path = beside(db, "-lock");
        let is_made = !path.exists();
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| unusable(&path, &e))?;
        if is_made {
            share(db, &file);
        }
        match file.try_lock() {
            Ok(()) => {
                let lock = ServerLock { path, file, is_made };
                // What a server that was killed has left. OK to fail: a full disk still serves reads.
                let _ = lock.write("");
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => Err(served(db)),
            Err(TryLockError::Error(e)) => Err(unusable(&path, &e)),
        }
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        // OK to fail: the next one to take it does the same.
        let _ = self.write("");
        if self.is_made {
            // OK to fail: it is empty, and in nobody's way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who opens a database of another's, such as root, does not lock its owner out. OK to fail: nobody else can
/// give a file away.
fn share(db: &Path, lock: &File) {
    if let Ok(owner) = db.metadata() {
        let _ = std::os::unix::fs::fchown(lock, Some(owner.uid()), Some(owner.gid()));
    }
}

/// The size of SQLite's header, with the ids of the program and of the schema.
pub const HEADER_BYTES: usize = 100;

/// The path with its directory and all links resolved.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return path.canonicalize().map_err(|e| unusable(path, &e));
    }
    if path.is_symlink() {
        return Err(unusable(path, &"it is a link to nothing"));
    }
    let name = path.file_name().ok_or_else(|| unusable(path, &"it names no file"))?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(|e| unusable(parent, &e))?;
    Ok(parent.join(name))
}

/// Under another name, or in another directory, the file would have another log.
fn refuse_other_names(path: &Path) -> Result<()> {
    let metadata = path.metadata().map_err(|e| unusable(path, &e))?;
    if metadata.is_dir() {
        return Err(unusable(path, &"it is a directory; name a file"));
    }
    if !metadata.is_file() {
        return Err(unusable(path, &"it is not a regular file"));
    }
    if metadata.nlink() > 1 {
        let why = format!(
            "it has {} names (hard links), and each would have a log of its own: remove all but one \
             (`find DIR -samefile {}` lists them), or serve a copy",
            metadata.nlink(),
            path.display()
        );
        return Err(unusable(path, &why));
    }
    if is_mount_point(path) {
        let why =
            "it is mounted by itself, apart from its directory, where its log would be: mount the \
                   directory that it is in";
        return Err(unusable(path, &why));
    }
    Ok(())
}

/// Where the system does not tell what is mounted, nothing is.
fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut points = mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let point = line.split(|byte| *byte == b' ').nth(4)?;
        Some(unescaped(point))
    });
    points.any(|point| point == path.as_os_str().as_bytes())
}

/// A space, a tab, a line's end and a backslash are `\` and three octal digits there.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    bytes
}

/// A file in the directory of `path` that is removed unless it is put in a place.
pub fn temporary(path: &Path, what: &str) -> Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(&format!("{name}-{what}-"))
        // As other files are made: less the umask.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(|e| unusable(dir, &e))
}

/// Brings the names in the directory of `path` to the disk.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn served(path: &Path) -> Error {
    let who = match addresses(&beside(path, "-lock")) {
        Some(addresses) => format!("another server is serving it on {addresses}"),
        None => "another server is serving it, or a client has it open".to_owned(),
    };
    unusable(path, &who)
}

/// What the holder of a lock has written into it, if that is a line of text.
fn addresses(lock: &Path) -> Option<String> {
    let mut text = [0; 1024];
    let bytes = File::open(lock).and_then(|file| file.read_at(&mut text, 0)).ok()?;
    let text = std::str::from_utf8(&text[..bytes]).ok()?.trim_end();
    let is_line = !text.is_empty() && !text.contains(char::is_control);
    is_line.then(|| text.to_owned())
}

pub fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Unusable(format!("cannot use the database {}: {why}", path.display()))
}
