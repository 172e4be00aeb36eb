//! Where rows go to: stdout, or a new file that has its name when it is whole.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::super::failure::{Failure, Result};

/// In large writes.
pub type Output = BufWriter<Box<dyn Write + Send>>;

pub enum Target {
    Stdout,
    /// Beside the place that it is to have, under another name. Removed unless it is kept.
    File {
        new: NamedTempFile,
        path: PathBuf,
    },
}

impl Target {
    /// The file `path`, or stdout, and what to write to.
    pub fn open(path: Option<&Path>) -> Result<(Target, Output)> {
        let (target, out): (Target, Box<dyn Write + Send>) = match path {
            None => (Target::Stdout, Box::new(io::stdout())),
            Some(path) => {
                let (new, file) = create(path).map_err(|why| failure(path, why))?;
                // Of a link, the file that it points to.
                let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
                (Target::File { new, path }, Box::new(file))
            }
        };
        Ok((target, BufWriter::with_capacity(64 << 10, out)))
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Target::Stdout => "stdout".to_owned(),
            Target::File { path, .. } => path.display().to_string(),
        }
    }

    pub fn is_stdout(&self) -> bool {
        matches!(self, Target::Stdout)
    }

    /// Gives what is written, and on the disk, its name.
    pub fn keep(self) -> Result<()> {
        let Target::File { new, path } = self else { return Ok(()) };
        let synced = new.as_file().sync_all();
        let kept = synced.and_then(|()| new.persist(&path).map_err(|error| error.error));
        kept.map(|_| ()).map_err(|error| failure(&path, error))
    }
}

fn failure(path: &Path, error: io::Error) -> Failure {
    Failure::io(&path.display().to_string(), error)
}

/// A file in the directory of `path`, which itself is not touched.
fn create(path: &Path) -> io::Result<(NamedTempFile, File)> {
    // It would be replaced: a device, a pipe.
    if fs::metadata(path).is_ok_and(|it| !it.is_file()) {
        return Err(io::Error::other("is no regular file"));
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let new = tempfile::Builder::new()
        .prefix(&format!("{}-partial-", name.to_string_lossy()))
        // As other files are made: less the umask.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)?;
    let file = new.as_file().try_clone()?;
    Ok((new, file))
}
