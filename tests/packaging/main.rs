//! What is installed and how: `make install`, the systemd unit, the Debian package, the Dockerfile, and docs/install.md.
//! Everything is installed below a directory of the test, and nothing on this machine.

#[path = "../common/skip.rs"]
#[allow(dead_code)] // Half of it has no need of a patched core.
mod skip;

mod deb;
mod docker;
mod installed;
mod page;
mod published;
mod unit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = env!("CARGO_BIN_EXE_billstream");

/// The text of a file of the project.
fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs a command; its output, which must be that of a success.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

fn is_there(program: &str) -> bool {
    let mut which = Command::new("sh");
    which.args(["-c", "command -v \"$0\" >&2", program]).output().unwrap().status.success()
}

/// `make` here, on the program that is being tested, which it does not build again.
fn make(args: &[&str]) -> Command {
    let mut make = Command::new("make");
    let target = Path::new(PROGRAM).parent().unwrap().parent().unwrap();
    make.args(["-o", "build"]).args(args).current_dir(ROOT);
    // A variable of whoever runs the tests must not get into the configuration that is installed.
    make.env("CARGO_TARGET_DIR", target).env("BILLSTREAM_LISTEN", "127.0.0.1:1");
    make
}

fn install(below: &Path) {
    run(&mut make(&["install", &format!("DESTDIR={}", below.display()), "PREFIX=/usr"]));
}

/// Where `make install` has put everything, once for all tests.
fn stage() -> &'static Path {
    static STAGE: OnceLock<PathBuf> = OnceLock::new();
    STAGE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("installed");
        let _ = fs::remove_dir_all(&dir);
        install(&dir);
        dir
    })
}
