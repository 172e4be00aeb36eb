//! Tokens over the wire: who may call what, files that change under load, limits by name, and what the log says.

#[path = "../common/mod.rs"]
mod common;

mod backup;
mod calls;
mod certificates;
mod limits;
mod log_lines;
mod reload;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use billstream::tokens::{hash, token};
use billstream::Config;
use grpcio::{CallOption, MetadataBuilder};

use common::*;

/// A file of tokens in a directory of its own.
struct TokenFile {
    dir: tempfile::TempDir,
}

impl TokenFile {
    fn new(text: &str) -> TokenFile {
        let file = TokenFile { dir: tempfile::tempdir().unwrap() };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tokens")
    }

    /// Puts a new file in the place of the one that is there.
    fn write(&self, text: &str) {
        self.write_with_mode(text, 0o600);
    }

    fn write_with_mode(&self, text: &str, mode: u32) {
        let new = self.dir.path().join("new");
        fs::write(&new, text).unwrap();
        set_mode(&new, mode);
        fs::rename(new, self.path()).unwrap();
    }

    fn config(&self) -> Config {
        Config { tokens: self.path(), ..Config::default() }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The line of a token of `name`.
fn line(name: &str, rights: &str, token: &str) -> String {
    let hash = hash(token.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
    format!("{name} {rights} sha256:{hash}\n")
}

/// A token that no other test has.
fn some_token(number: u8) -> String {
    let random: Vec<u8> = [uuid(), uuid()].concat();
    let mut bytes: [u8; 32] = random.try_into().unwrap();
    bytes[0] = number;
    token(&bytes)
}

fn uuid() -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    (0..2u8).flat_map(|part| RandomState::new().hash_one(part).to_le_bytes()).collect()
}

/// The options of a call with these `authorization` headers.
fn with_headers(headers: &[&str]) -> CallOption {
    let mut metadata = MetadataBuilder::new();
    for header in headers {
        metadata.add_str("authorization", header).unwrap();
    }
    CallOption::default().headers(metadata.build()).timeout(DEADLINE)
}

fn with_token(token: &str) -> CallOption {
    with_headers(&[&format!("Bearer {token}")])
}
