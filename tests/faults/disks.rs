//! Disks that are small, or fail.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::skip::skip;

/// A filesystem of a few MiB, for as long as this lives.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// `None`, with the reason printed, where none can be mounted.
    pub fn mount(size: usize) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "billstream-test"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(SmallDisk { dir }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                skip(&format!("a tmpfs cannot be mounted: {}", why.trim()));
                None
            }
            Err(why) => {
                skip(&format!("there is no mount: {why}"));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of `size` bytes, or of all the room there is.
    pub fn fill(&self, name: &str, size: usize) -> PathBuf {
        let path = self.path().join(name);
        let mut file = fs::File::create(&path).unwrap();
        let block = [0; 4096];
        for _ in 0..size.div_ceil(block.len()) {
            if file.write_all(&block).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because after a panic the server may still have its files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}

/// The library that makes the disk of a process fail.
pub fn failing_disk(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/failing_disk.c");
    let library = dir.join("failing_disk.so");
    let compile = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(compile.unwrap().success(), "cc failed");
    library
}
