//! The command blocks of README.md, as they stand there.
//!
//! The first sitting runs as it is written. The other blocks build, install or test, which cannot be done in
//! the middle of a test: that what they name is there is held instead.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The longest that the first sitting may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Each block of shell commands, with the heading that it is under.
fn blocks() -> Vec<(String, String)> {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (mut blocks, mut heading, mut block) = (Vec::new(), String::new(), None::<String>);
    for line in readme.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (None, line) if line.starts_with("## ") => heading = line[3..].to_owned(),
            (None, _) => {}
            (Some(_), "```") => blocks.push((heading.clone(), block.take().unwrap())),
            (Some(block), line) => *block += &format!("{line}\n"),
        }
    }
    blocks
}

fn first_sitting() -> String {
    let mut found = blocks().into_iter().filter(|(heading, _)| heading == "A first sitting");
    let (_, block) = found.next().expect("a first sitting");
    assert_eq!(found.next(), None, "one block of commands");
    block
}

/// Runs `script` as a person would who has built the program, but for the port, which may be taken. Gives
/// what it printed on both; it must end with code 0, and so must each command of it.
fn run(script: &str, dir: &Path) -> (String, String) {
    let release = Path::new(env!("CARGO_BIN_EXE_billstream")).parent().unwrap();
    fs::create_dir(dir.join("target")).unwrap();
    std::os::unix::fs::symlink(release, dir.join("target/release")).unwrap();
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", script]).current_dir(dir);
    bash.env("BILLSTREAM_LISTEN", &addr).env("BILLSTREAM_ADDR", &addr);
    // A group of its own, so that nothing of it is left when it fails half way.
    bash.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = bash.spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (sender, outputs) = channel();
    for (i, mut output) in
        [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)].into_iter().enumerate()
    {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            sender.send((i, text)).unwrap();
        });
    }
    let mut texts = [String::new(), String::new()];
    let mut complete = true;
    for _ in 0..2 {
        match outputs.recv_timeout(DEADLINE) {
            Ok((i, text)) => texts[i] = text,
            Err(_) => complete = false,
        }
    }
    let kill = format!("kill -KILL -{} 2>&-", child.id());
    let _ = Command::new("sh").args(["-c", &kill]).status();
    let status = child.wait().unwrap();
    assert!(complete, "it does not end; or a server is left of it");
    let [stdout, stderr] = texts;
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

#[test]
fn the_first_sitting_goes_as_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (stdout, stderr) = run(&first_sitting(), dir.path());
    println!("{stdout}\n{stderr}");
    assert!(stdout.starts_with("listening on 127.0.0.1:"), "{stdout}");
    assert!(stdout.contains("\ncreated_count    100000\n"), "{stdout}");
    assert!(stdout.contains("\ninvoice_count  100000\n"), "{stdout}");
    assert!(stdout.contains("\ne-1,SETTLED,PAID,0,false,\n"), "{stdout}");
    assert!(stdout.trim_end().ends_with("the database is sound"), "{stdout}");
    // (The import may be quicker than the server, and then says that it tries again.)
    assert!(!stderr.lines().any(|line| line.starts_with("error")), "{stderr}");
    let file = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(file("all.csv") == file("invoices.csv"), "not the invoices of the file, byte for byte");
    assert!(dir.path().join("copy.db").exists());
}

/// A word after another in a command, as in `--test wire`.
fn after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.split_whitespace().skip_while(|&w| w != word).nth(1)
}

#[test]
fn what_the_other_blocks_name_is_there() {
    let makefile = fs::read_to_string(Path::new(ROOT).join("Makefile")).unwrap();
    let is_target = |name: &str| {
        makefile.lines().any(|line| {
            line.split_once(':').is_some_and(|(names, _)| names.split(' ').any(|n| n == name))
        })
    };
    let exists = |path: String| Path::new(ROOT).join(&path).exists();
    let mut lines = 0;
    for (heading, block) in blocks() {
        if heading == "A first sitting" {
            continue;
        }
        for line in block.lines() {
            lines += 1;
            let command = line.split('#').next().unwrap().trim();
            if let Some(target) = command.strip_prefix("make ") {
                assert!(is_target(target), "{line}");
            } else if command.starts_with("build/") {
                assert!(exists(command.split(' ').next().unwrap().to_owned()), "{line}");
            } else {
                assert!(command.contains("cargo "), "run it, or hold it here: {line}");
                if let Some(test) = after(command, "--test") {
                    assert!(
                        exists(format!("tests/{test}.rs")) || exists(format!("tests/{test}")),
                        "{line}"
                    );
                }
                if let Some(bench) = after(command, "--bench") {
                    assert!(exists(format!("benches/{bench}.rs")), "{line}");
                }
            }
        }
    }
    assert!(lines > 5, "the blocks are not found");
}
