//! The public items: how many there are, and that each is used by an example, a doc test or a test.
//! (`cargo test --release --test public_api -- --nocapture` prints the number.)

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use billstream::bridge::{self, Closed, RecvError};
use billstream::client::{Acks, Client, Error, Retry};
use billstream::metrics::{Gauge, Metrics};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The public modules; `use` brings what is in private ones.
const MODULES: &[&str] = &[
    "lib.rs",
    "bridge/mod.rs",
    "client/mod.rs",
    "config/mod.rs",
    "error.rs",
    "metrics.rs",
    "model.rs",
    "server/mod.rs",
    "services/health.rs",
    "services/mod.rs",
    "services/reflection.rs",
    "stop.rs",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What a module shows that is not hidden.
fn shown(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let items = text.split("\npub ").collect::<Vec<_>>();
    for pair in items.windows(2) {
        let attributes = pair[0].rsplit("\n\n").next().unwrap_or_default();
        let last = attributes.rsplit(['}', ';']).next().unwrap_or_default();
        if last.contains("#[doc(hidden)]") {
            continue;
        }
        let item = pair[1];
        match words(item).next() {
            Some("struct" | "enum" | "fn" | "const" | "type") => {
                found.extend(words(item).nth(1).map(str::to_owned));
            }
            Some("use") => {
                let path = item.split(';').next().unwrap();
                let names = path.rsplit("::").next().unwrap().split(',');
                found.extend(names.filter_map(|name| Some(words(name).last()?.to_owned())));
            }
            _ => {}
        }
    }
    found
}

fn messages() -> Vec<String> {
    let contract = read("proto/billing/v1/report.proto") + &read("proto/billing/v1/admin.proto");
    let heads =
        contract.lines().filter(|line| line.starts_with("message ") || line.starts_with("enum "));
    heads.filter_map(|line| words(line).nth(1).map(str::to_owned)).collect()
}

/// The text of the files below `dir`, of doc comments alone where it is the source.
fn uses(dir: &Path, all: &mut String) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            uses(&path, all);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            match path.starts_with(Path::new(ROOT).join("src")) && !path.ends_with("tests.rs") {
                true => doc_tests(&text, all),
                false => all.push_str(&text),
            }
        }
    }
}

fn doc_tests(text: &str, all: &mut String) {
    let mut is_code = false;
    for line in text.lines().map(str::trim_start) {
        let Some(line) = line.strip_prefix("///").or(line.strip_prefix("//!")) else {
            is_code = false;
            continue;
        };
        is_code ^= line.trim_start().starts_with("```");
        if is_code {
            all.push_str(line);
            all.push('\n');
        }
    }
    all.push_str(text.split("#[cfg(test)]\nmod tests").nth(1).unwrap_or_default());
}

#[test]
fn every_public_item_is_used() {
    let items: BTreeSet<String> = MODULES
        .iter()
        .flat_map(|module| shown(&read(&format!("src/{module}"))))
        .chain(messages())
        .collect();
    let mut all = String::new();
    for dir in ["src", "tests", "examples", "benches"] {
        uses(&Path::new(ROOT).join(dir), &mut all);
    }
    let used: BTreeSet<&str> = words(&all).collect();
    let unused: Vec<_> = items.iter().filter(|item| !used.contains(&item[..])).collect();
    println!("{} public items: {items:?}", items.len());
    assert!(items.contains("Client") && items.contains("Invoice"), "{items:?}");
    assert!(unused.is_empty(), "{unused:?}");
}

/// The types that are met through others.
#[test]
fn what_others_give_has_a_name() {
    let (sender, receiver) = bridge::bounded(1);
    let closed: Closed = sender.closed();
    sender.try_send(7).unwrap();
    drop(sender);
    assert_eq!((receiver.recv(), receiver.recv()), (Ok(7), Err(RecvError)));
    assert!(!closed.get());
    drop(receiver);
    assert!(closed.get());

    let client = Client::connect("127.0.0.1:1").with_retries(Duration::ZERO);
    let mut retry: Retry = client.retry();
    assert!(retry.wait(Error::new(billstream::client::Code::Unavailable, "lost")).is_err());
    let mut acks: Acks = client.reconcile().split().1;
    assert!(acks.next().is_none(), "no event was sent");

    let metrics = Metrics::default();
    let gauge: &Gauge = &metrics.wal_bytes;
    assert_eq!(gauge.get(), 0);
}
