//! The command blocks of README.md and of the pages in docs/, as they stand there, and what those texts name.
//!
//! The first sitting and the blocks of docs/ run as they are written. The other blocks of the README build,
//! install or test, which cannot be done in the middle of a test: that what they name is there is held instead.
//! (The pages in docs/clients are of tests/docs.)

#[allow(dead_code)] // This test binary uses a part.
#[path = "common/skip.rs"]
mod skip;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use billstream::config::{Config, SETTINGS};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The longest that a block may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// A block of a text, with the heading that it is under.
struct Block {
    heading: String,
    /// What stands behind its fence.
    language: String,
    text: String,
}

fn blocks(path: &Path) -> Vec<Block> {
    let (mut blocks, mut heading, mut block) = (Vec::new(), String::new(), None::<Block>);
    for line in fs::read_to_string(path).unwrap().lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let (heading, language) = (heading.clone(), language.to_owned());
                block = Some(Block { heading, language, text: String::new() });
            }
            (None, None) if line.starts_with("## ") => heading = line[3..].to_owned(),
            (None, None) => {}
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
        }
    }
    assert!(block.is_none(), "{}: a block without an end", path.display());
    blocks
}

fn readme() -> PathBuf {
    Path::new(ROOT).join("README.md")
}

/// The texts below `dir`.
fn pages(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join(dir)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect()
}

fn texts() -> Vec<PathBuf> {
    [vec![readme()], pages("docs"), pages("docs/clients")].concat()
}

fn commands(path: &Path) -> impl Iterator<Item = Block> {
    blocks(path).into_iter().filter(|block| block.language == "sh")
}

fn first_sitting() -> String {
    let mut found = commands(&readme()).filter(|block| block.heading == "A first sitting");
    let block = found.next().expect("a first sitting");
    assert!(found.next().is_none(), "one block of commands");
    block.text
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
    // Over the network, and of the file.
    assert_eq!(stdout.matches("\ninvoice_count  100000\n").count(), 2, "{stdout}");
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
    for block in commands(&readme()) {
        if block.heading == "A first sitting" {
            continue;
        }
        for line in block.text.lines() {
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

#[test]
fn the_blocks_of_the_pages_run_as_they_are_written() {
    // tests/outside.rs makes a crate of the first one, tests/health has the second, tests/packaging the others.
    let elsewhere = ["embedding.md", "health.md", "install.md", "release.md"];
    let is_elsewhere = |page: &PathBuf| elsewhere.iter().any(|name| page.ends_with(name));
    for page in pages("docs").into_iter().filter(|page| !is_elsewhere(page)) {
        if page.ends_with("security.md") && Command::new("openssl").arg("version").output().is_err()
        {
            skip::skip("docs/security.md: there is no openssl (apt-get install openssl)");
            continue;
        }
        for block in blocks(&page) {
            match &block.language[..] {
                "sh" => {
                    let dir = tempfile::tempdir().unwrap();
                    if page.ends_with("upgrade.md") {
                        let old = Path::new(ROOT).join("tests/fixtures/version_1.db");
                        fs::copy(old, dir.path().join("bills.db")).unwrap();
                    }
                    let (stdout, stderr) = run(&block.text, dir.path());
                    println!("{}:\n{stdout}\n{stderr}", page.display());
                    if page.ends_with("failures.md") {
                        assert!(stdout.contains("\ninvoice_count  200000\n"), "{stdout}");
                        assert!(stdout.trim_end().ends_with("the database is sound"), "{stdout}");
                    }
                    if page.ends_with("upgrade.md") {
                        let of = |text: &str| stdout.matches(text).count();
                        assert_eq!((of("\nschema version 3\n"), of("database is sound\n")), (1, 3));
                    }
                    if page.ends_with("security.md") {
                        assert_eq!(stdout.matches("\ninvoice_count  0\n").count(), 2, "{stdout}");
                        let replaced = "new connections have the new certificate";
                        assert_eq!(stderr.matches(replaced).count(), 1, "{stderr}");
                    }
                }
                "toml" => {
                    let dir = tempfile::tempdir().unwrap();
                    fs::write(dir.path().join("billstream.toml"), &block.text).unwrap();
                    let check = "target/release/billstream generate --rows 1 > one.csv\n\
                        target/release/billstream import --db bills.db one.csv\n\
                        target/release/billstream check --config billstream.toml --db bills.db";
                    let (stdout, _) = run(check, dir.path());
                    assert!(stdout.contains("max_exports = 100  # billstream.toml"), "{stdout}");
                }
                "text" => {}
                // tests/backup/litestream.rs runs them.
                "yaml" | "bash" => {
                    assert!(page.ends_with("backup.md"))
                }
                // tests/parquet.rs runs it.
                "python" => assert!(page.ends_with("files.md")),
                // tests/abuse/proxy.rs runs it.
                "nginx" => assert!(page.ends_with("proxy.md")),
                other => panic!("{}: no test runs a block of {other:?}", page.display()),
            }
        }
    }
}

/// What stands in `text` between `open` and `close` on one line.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().flat_map(move |line| line.split(open).skip(1));
    lines.filter_map(move |rest| rest.split_once(close).map(|(inner, _)| inner))
}

#[test]
fn links_lead_to_files() {
    for path in texts() {
        let text = fs::read_to_string(&path).unwrap();
        for link in between(&text, "](", ")").filter(|link| !link.contains("://")) {
            let file = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(file.exists(), "{}: {link}", path.display());
        }
    }
}

/// All Rust below `dir`, in one text.
fn source(dir: &Path) -> String {
    let mut text = String::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            text += &source(&path);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// The last column of the tables in docs/failures.md, and tests named elsewhere in docs/.
#[test]
fn settings_and_tests_that_the_pages_name_are_there() {
    let tests = source(&Path::new(ROOT).join("tests"));
    let line = fs::read_to_string(Path::new(ROOT).join("src/calls/line.rs")).unwrap();
    let mut named = 0;
    for page in pages("docs") {
        let text = fs::read_to_string(&page).unwrap();
        // Odd pieces are what stands in backticks, outside of blocks.
        let prose: String = text.split("```").step_by(2).collect();
        for word in prose.split('`').skip(1).step_by(2) {
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
            // tests/admin holds the names of metrics to what there is.
            let is_metric =
                ["billstream_", "rpc_", "process_"].iter().any(|prefix| word.starts_with(prefix));
            if !word.chars().all(is_name) || is_metric {
                continue;
            }
            let is_setting = SETTINGS.iter().any(|setting| setting.name == word);
            let units = ["_ms", "_bytes", "_rows", "_percent", "_workers", "_chunks", "_events"];
            if units.iter().any(|unit| word.ends_with(unit)) || word.starts_with("max_") {
                // Of a request, or of a line of the log.
                let is_field = word == "max_rows" || line.contains(&format!("{word} = "));
                assert!(is_setting || is_field, "{}: no setting {word}", page.display());
            } else if word.matches('_').count() >= 3 {
                named += 1;
                assert!(tests.contains(&format!("fn {word}()")), "{}: {word}", page.display());
            }
        }
    }
    assert!(named > 25, "the names are not found");
}

#[test]
fn the_memory_of_an_export_is_what_the_page_says() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/flow-control.md")).unwrap();
    let bytes = Config::default().export_memory_bytes();
    assert!(page.contains(&format!("     {bytes} by default\n")), "{bytes}");
}

/// The sum in docs/flow-control.md, with the numbers that stand there.
#[test]
fn the_memory_of_all_streams_is_the_sum_on_the_page() {
    let c = Config { max_exports: 7, max_uploads: 5, max_reconciles: 3, ..Config::default() };
    let c = Config { max_backups: 2, ..c };
    let chunk = 2 * c.export_chunk_bytes + 1408;
    let reconcile = 2 * c.max_message_bytes + c.max_batch_rows * (320 + 896) + 65_536;
    let sum = c.max_exports * (c.export_queue_chunks + 2) * chunk
        + c.max_answer_bytes
        + c.max_page_size * 1408
        + c.export_workers * 8 * chunk
        + c.max_uploads * (c.upload_memory_bytes + c.max_message_bytes)
        + c.reconcile_memory_bytes
        + c.max_reconciles * reconcile
        + c.max_backups * ((2 << 20) + (2 + 2) * (64 << 10));
    assert_eq!(sum, c.streams_memory_bytes());
}
