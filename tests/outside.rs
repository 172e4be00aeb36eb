//! The crate of docs/embedding.md, made outside the tree from the blocks of the page, and what such a crate
//! gets.

#[path = "common/skip.rs"]
#[allow(dead_code)]
mod skip;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a library user links none of.
const NOT_LINKED: &[&str] =
    &["clap", "csv", "env_logger", "indicatif", "jiff", "parquet", "signal-hook", "tokio", "toml"];

/// Cargo as someone has it who is at home in `dir`: without what the run of this test has set.
fn cargo(dir: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(dir);
    for ours in
        ["GRPCIO_SYS_USE_PKG_CONFIG", "CMAKE_TOOLCHAIN_FILE", "CMAKE_POLICY_VERSION_MINIMUM"]
    {
        cargo.env_remove(ours);
    }
    cargo
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn page() -> String {
    fs::read_to_string(Path::new(ROOT).join("docs/embedding.md")).unwrap()
}

/// The block of the page whose first line names `file`.
fn block(file: &str) -> String {
    let page = page();
    let blocks = page.split("\n```").skip(1).step_by(2);
    let mut found = blocks.filter_map(|block| {
        let (_language, block) = block.split_once('\n')?;
        let (first, _) = block.split_once('\n')?;
        (first.trim_start_matches(['#', '/', ' ']) == file).then(|| block.to_owned())
    });
    found.next().unwrap_or_else(|| panic!("no block of {file}"))
}

/// The crate in a directory outside the tree, with the versions that are built here.
fn embedder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let manifest = block("Cargo.toml");
    assert!(manifest.contains("\"../billstream\""), "{manifest}");
    write("Cargo.toml", &manifest.replace("../billstream", ROOT));
    write(".cargo/config.toml", &block(".cargo/config.toml"));
    write("src/main.rs", &block("src/main.rs"));
    write("src/bin/greeter.rs", &block("src/bin/greeter.rs"));
    fs::copy(Path::new(ROOT).join("Cargo.lock"), dir.path().join("Cargo.lock")).unwrap();
    fs::create_dir(dir.path().join("build")).unwrap();
    for entry in fs::read_dir(Path::new(ROOT).join("build")).unwrap() {
        let (path, name) = entry.map(|it| (it.path(), it.file_name())).unwrap();
        if name.to_string_lossy().starts_with("grpc-") {
            fs::copy(path, dir.path().join("build").join(name)).unwrap();
        }
    }
    dir
}

/// Kept below target/, so that only the first run builds all of it.
fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The names of the crates that `cargo tree` prints.
fn tree(dir: &Path, args: &[&str]) -> Vec<String> {
    let mut cargo = cargo(dir);
    cargo.args(["tree", "--offline", "--edges", "normal", "--prefix", "none"]);
    let printed = succeeded(cargo.args(args).output().unwrap());
    printed.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

#[test]
fn without_features_nothing_of_the_command_line_is_linked() {
    let with = tree(Path::new(ROOT), &["--locked"]);
    let without = tree(Path::new(ROOT), &["--locked", "--no-default-features"]);
    for name in NOT_LINKED {
        assert!(!without.iter().any(|it| it == name), "{name} is linked");
        assert!(*name == "tokio" || with.iter().any(|it| it == name), "no {name} at all");
    }
    assert!(without.iter().any(|it| it == "grpcio"), "{without:?}");
}

#[test]
fn the_crate_of_the_page_builds_and_runs_outside_the_tree() {
    let exists = Command::new("pkg-config").args(["--exists", "grpc"]).status();
    if !exists.is_ok_and(|status| status.success()) {
        return skip::skip("no gRPC of the distribution: build/install-deps.sh --distro-grpc");
    }
    let embedder = embedder();
    let mut build = cargo(embedder.path());
    build.args(["build", "--release", "--offline", "--target-dir"]).arg(target("outside"));
    // As the page has it.
    let distro = "```sh\nGRPCIO_SYS_USE_PKG_CONFIG=1 cargo build --release\n```";
    assert!(page().contains(distro), "no {distro}");
    succeeded(build.env("GRPCIO_SYS_USE_PKG_CONFIG", "1").output().unwrap());
    let linked = tree(embedder.path(), &[]);
    assert!(linked.iter().any(|it| it == "billstream"), "{linked:?}");
    for name in NOT_LINKED {
        assert!(!linked.iter().any(|it| it == name), "{name} is linked");
    }
    let data = tempfile::tempdir().unwrap();
    let run = |program: &str| {
        let program = target("outside/release").join(program);
        succeeded(Command::new(program).current_dir(data.path()).output().unwrap())
    };
    let printed = run("embedder");
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[..3], ["inv-1 250", "inv-2 250", "inv-3 250"]);
    assert!(lines[3].starts_with("stopped after "), "{printed}");
    assert_eq!(lines[4..], ["3 invoices"]);

    let printed = run("greeter");
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].starts_with("listening on 127.0.0.1:"), "{printed}");
    let socket = data.path().canonicalize().unwrap().join("bills.sock");
    assert_eq!(lines[2], format!("listening on unix:{}", socket.display()));
    assert_eq!([lines[1], lines[3]], ["3 invoices"; 2]);
    assert!(lines[4].starts_with("stopped after "), "{printed}");
    assert!(!socket.exists());
}

#[test]
fn the_program_of_the_readme_is_part_of_the_one_on_the_page() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (_, rust) = readme.split_once("\n```rust\n").expect("a block of Rust");
    let (rust, _) = rust.split_once("```").expect("its end");
    let page = block("src/main.rs");
    for line in rust.lines() {
        assert!(page.lines().any(|it| it.trim() == line.trim()), "{line}");
    }
}

#[test]
fn grpcio_beside_us_as_the_page_says_turns_no_second_codec_on() {
    let embedder = embedder();
    let manifest = embedder.path().join("Cargo.toml");
    let beside = fs::read_to_string(&manifest).unwrap() + &block("beside billstream");
    fs::write(&manifest, beside).unwrap();
    let mut tree = cargo(embedder.path());
    tree.args(["tree", "--offline", "--depth", "1", "--prefix", "none", "--format", "{p}: {f}"]);
    let printed = succeeded(tree.output().unwrap());
    let grpcio = printed.lines().find(|line| line.starts_with("grpcio v")).expect("grpcio");
    assert!(grpcio.contains("protobufv3-codec"), "{grpcio}");
    assert!(!grpcio.contains("protobuf-codec") && !grpcio.contains("prost"), "{grpcio}");
}

/// The build of the C core itself takes minutes: a cmake that tells what it is given ends it at its start.
#[test]
fn what_the_page_sets_reaches_cmake() {
    let embedder = embedder();
    let bin = embedder.path().join("bin");
    let told = embedder.path().join("told");
    fs::create_dir(&bin).unwrap();
    let cmake = bin.join("cmake");
    let script = "#!/bin/sh\nprintf '%s\\n' \"$@\" >> \"$TOLD\"\nenv >> \"$TOLD\"\nexit 1\n";
    fs::write(&cmake, script).unwrap();
    fs::set_permissions(&cmake, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut build = cargo(embedder.path());
    build.args(["build", "--release", "--offline", "-p", "grpcio-sys", "--target-dir"]);
    build.arg(target("outside-cmake")).env("PATH", format!("{}:{path}", bin.display()));
    let output = build.env("TOLD", &told).env_remove("CMAKE").output().unwrap();
    assert!(!output.status.success(), "it is to end with cmake");
    let told = fs::read_to_string(&told).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let toolchain = embedder.path().join("build/grpc-toolchain.cmake");
    assert!(toolchain.exists());
    let toolchain = format!("CMAKE_TOOLCHAIN_FILE={}", toolchain.display());
    for line in [&format!("-D{toolchain}"), &toolchain, "CMAKE_POLICY_VERSION_MINIMUM=3.5"] {
        assert!(told.lines().any(|it| it == line), "no {line} in {told}");
    }
}
