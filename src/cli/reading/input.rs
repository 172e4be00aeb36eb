//! An input file that can be read again from its start.

use std::fs::File;
use std::io::{self, Seek};

use super::super::failure::{Failure, Result};

/// A file, or a temporary copy of what can be read only once (stdin, a pipe), so that an upload can
/// begin again after a lost connection.
pub struct Input {
    /// What messages call it.
    pub name: String,
    file: File,
    /// Bytes.
    pub len: u64,
}

impl Input {
    /// Opens the file `path`, or stdin for `-`. Reads stdin and pipes to their end.
    pub fn open(path: &str) -> Result<Input> {
        let name = display_name(path);
        if path == "-" {
            return Input::spool(name, io::stdin().lock());
        }
        let file = open(path)?;
        let metadata = file.metadata().map_err(|error| Failure::io(path, error))?;
        if !metadata.is_file() {
            return Input::spool(name, file);
        }
        Ok(Input { name, file, len: metadata.len() })
    }

    fn spool(name: String, mut source: impl io::Read) -> Result<Input> {
        let spooled = tempfile::tempfile().and_then(|mut file| {
            let len = io::copy(&mut source, &mut file)?;
            Ok((file, len))
        });
        let (file, len) = spooled
            .map_err(|error| Failure::io(&format!("{name}: copy to a temporary file"), error))?;
        Ok(Input { name, file, len })
    }

    /// A reader from the start. Only one can be in use at a time.
    pub fn reader(&self) -> Result<&File> {
        let mut reader = &self.file;
        reader.rewind().map_err(|error| Failure::io(&self.name, error))?;
        Ok(reader)
    }
}

/// What messages call the input `path`.
pub fn display_name(path: &str) -> String {
    if path == "-" { "stdin" } else { path }.to_owned()
}

/// Opens an input that is not stdin. One that cannot be opened is a wrong command line.
pub fn open(path: &str) -> Result<File> {
    let file = File::open(path).map_err(|error| Failure::Usage(format!("{path}: {error}")))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(Failure::Usage(format!("{path}: a directory; expected a csv or ndjson file")))
        }
        _ => Ok(file),
    }
}
