//! The server inside another program: how it starts, what it serves beside, and how it stops.

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod own;
mod starts;
mod stops;

use std::path::Path;

use billstream::Config;

/// With a database in `dir`, on a free port.
fn config(dir: &Path) -> Config {
    let listen = vec!["127.0.0.1:0".to_owned()];
    Config { db: dir.join("bills.db"), listen, ..Config::default() }
}

/// The names of the files in `dir`.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
