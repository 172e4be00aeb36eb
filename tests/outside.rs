//! What a crate outside the tree gets that turns the features off.

use std::process::Command;

/// What a library user links none of.
const NOT_LINKED: &[&str] =
    &["clap", "csv", "env_logger", "indicatif", "jiff", "signal-hook", "tokio", "toml"];

/// The names of the crates that `cargo tree` prints.
fn tree(args: &[&str]) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["tree", "--offline", "--edges", "normal", "--prefix", "none"]);
    let output = cargo.args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

#[test]
fn without_features_nothing_of_the_command_line_is_linked() {
    let with = tree(&["--locked"]);
    let without = tree(&["--locked", "--no-default-features"]);
    for name in NOT_LINKED {
        assert!(!without.iter().any(|it| it == name), "{name} is linked");
        assert!(*name == "tokio" || with.iter().any(|it| it == name), "no {name} at all");
    }
    assert!(without.iter().any(|it| it == "grpcio"), "{without:?}");
}
