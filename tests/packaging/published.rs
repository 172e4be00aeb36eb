//! What `cargo publish` uploads.

use std::collections::BTreeSet;

use super::*;

/// The files of the project below `dir`.
fn files(dir: &str) -> Vec<String> {
    let list = run(Command::new("find").args([dir, "-type", "f"]).current_dir(ROOT));
    list.lines().map(str::to_owned).collect()
}

#[test]
fn the_crate_has_what_its_build_reads_and_no_more() {
    let mut list = Command::new(env!("CARGO"));
    list.args(["package", "--list", "--allow-dirty", "--offline"]).current_dir(ROOT);
    let list = run(&mut list);
    let published: BTreeSet<&str> = list.lines().collect();
    let needed = ["src", "sql", "proto", "build", "build.rs", ".cargo/config.toml", "Cargo.lock"];
    for file in needed.into_iter().flat_map(files) {
        assert!(published.contains(&file[..]), "{file} is not published");
    }
    for left_out in ["benches/compare", "fuzz", ".ci", "target"] {
        let found = published.iter().find(|file| file.starts_with(&format!("{left_out}/")));
        assert!(found.is_none(), "{found:?} is published");
    }
}
