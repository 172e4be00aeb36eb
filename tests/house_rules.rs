//! The rules of `src/lib.rs`, held against the source.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use billstream::config::{Config, Range, SETTINGS};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The floor of each module of the library; the binary is above them all.
const FLOORS: &[(&str, u8)] = &[
    ("amount", 1),
    ("certificate", 1),
    ("config", 1),
    ("currency", 1),
    ("error", 1),
    ("method", 1),
    ("metrics", 1),
    ("model", 1),
    ("peer", 1),
    ("proto", 1),
    ("status", 1),
    ("stop", 1),
    ("tokens", 1),
    ("bridge", 2),
    ("store", 2),
    ("workers", 2),
    ("calls", 3),
    ("grpc", 4),
    ("services", 4),
    ("admin", 5),
    ("client", 5),
    ("server", 6),
];

struct Source {
    path: PathBuf,
    /// The module of the library, or `cli` for the binary.
    module: String,
    /// Without the unit tests at its end and without comments.
    text: String,
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut dirs = vec![Path::new(ROOT).join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else if entry.file_name().unwrap() != "tests.rs" {
                sources.push(source(entry));
            }
        }
    }
    sources
}

fn source(path: PathBuf) -> Source {
    let below = path.strip_prefix(Path::new(ROOT).join("src")).unwrap();
    let first = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
    let module = if matches!(first, "main" | "cli") { "cli" } else { first }.to_owned();
    let text = fs::read_to_string(&path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let code = code.split("#[cfg(test)]\npub mod tests").next().unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let text = code.lines().filter(is_code).map(|line| line.to_owned() + "\n").collect();
    Source { path, module, text }
}

/// What a file may say although its module may not: the thread that it is on serves no call.
const EXCEPTIONS: &[(&str, &str)] =
    &[("grpc/poller.rs", "block_on"), ("calls/start.rs", ".join()")];

impl Source {
    /// Whether it is a file of the engine, which alone knows SQLite.
    fn is_of_sqlite(&self) -> bool {
        self.path.starts_with(Path::new(ROOT).join("src/store/sqlite"))
    }
}

/// Fails with every file of the modules `within` that contains one of `words`.
fn assert_absent(words: &[&str], within: impl Fn(&str) -> bool) {
    assert_absent_in(words, |source| within(&source.module));
}

fn assert_absent_in(words: &[&str], within: impl Fn(&Source) -> bool) {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| within(source)) {
        let is_exception =
            |word| EXCEPTIONS.iter().any(|(file, w)| source.path.ends_with(file) && *w == word);
        for word in words.iter().filter(|w| source.text.contains(**w) && !is_exception(**w)) {
            found.push(format!("{}: {word}", source.path.display()));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The table of floors in `src/lib.rs` is the one that the imports are held to.
#[test]
fn the_map_shows_the_floors() {
    let map = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    let rows = map.lines().filter_map(|line| {
        let (floor, modules) = line.strip_prefix("//! | ")?.split_once(" | ")?;
        Some((floor.parse::<u8>().ok()?, modules))
    });
    let mut shown: Vec<(String, u8)> = Vec::new();
    for (floor, modules) in rows.filter(|(floor, _)| *floor < 7) {
        let names = modules.split(" · ").filter_map(|module| module.split('`').nth(1));
        shown.extend(names.map(|name| (name.to_owned(), floor)));
    }
    let mut floors: Vec<_> =
        FLOORS.iter().map(|(name, floor)| (name.to_string(), *floor)).collect();
    shown.sort();
    floors.sort();
    assert_eq!(shown, floors);
}

#[test]
fn imports_go_downwards_only() {
    let floors: HashMap<_, _> = FLOORS.iter().copied().collect();
    for source in sources() {
        let Some(floor) = floors.get(&source.module[..]) else {
            assert!(matches!(&source.module[..], "lib" | "cli"), "{} has no floor", source.module);
            continue;
        };
        for import in source.text.split("crate::").skip(1) {
            let name: String =
                import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(imported) = floors.get(&name[..]) else { continue };
            let is_fine =
                name == source.module || imported < floor || (imported == floor && *floor == 1);
            assert!(is_fine, "{} (floor {floor}) imports {name}", source.path.display());
        }
    }
}

#[test]
fn only_the_engine_of_the_store_names_sqlite() {
    assert_absent_in(&["rusqlite", "r2d2"], |source| !source.is_of_sqlite());
}

/// What of the engine is public although it is no method of an open store.
const OF_THE_FILE: &[&str] =
    &["backup", "check", "check_copy", "restore", "CheckReport", "NewFile", "Restored"];

/// Under whatever name: no public item beside the engine names what is imported from it.
#[test]
fn no_type_of_an_engine_passes_the_door_of_the_store() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| s.module == "store" && !s.is_of_sqlite()) {
        let imports = source.text.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
        let of_the_engine: HashSet<&str> =
            imports.filter(|import| import.contains("sqlite")).flat_map(words).collect();
        let is_of_the_engine = |word: &&str| {
            let is_path = matches!(*word, "crate" | "store" | "self" | "super");
            *word == "sqlite" || of_the_engine.contains(*word) && !is_path
        };
        for item in source.text.split("pub ").skip(1).map(head) {
            let is_of_the_file = item.starts_with("use sqlite::")
                && words(item).skip(3).all(|word| OF_THE_FILE.contains(&word));
            if !is_of_the_file && words(item).any(|word| is_of_the_engine(&word)) {
                found.push(format!("{}: pub {item}", source.path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What others see of the item that `code` begins with.
fn head(code: &str) -> &str {
    let end = match words(code).next() {
        Some("fn" | "struct" | "enum" | "trait") => code.find(['{', ';']),
        Some("use" | "type" | "const" | "static" | "mod") => code.find(';'),
        // A field.
        _ => code.find(",\n"),
    };
    &code[..end.unwrap_or(code.len())]
}

#[test]
fn grpc_and_the_bridge_keep_to_their_floors() {
    let of_grpc = ["grpc", "services", "server", "client", "lib"];
    assert_absent(&["grpcio"], |module| !of_grpc.contains(&module));
    assert_absent(&["crossbeam_channel"], |module| {
        !["bridge", "workers", "store", "server", "cli"].contains(&module)
    });
}

#[test]
fn sql_is_in_files() {
    assert_absent(&["SELECT ", "INSERT ", "UPDATE ", "DELETE FROM", "CREATE TABLE"], |_| true);
}

#[test]
fn the_library_leaves_the_process_alone() {
    let of_the_process =
        ["println!", "process::exit", "env_logger", "signal_hook", "set_hook", "dbg!", "todo!"];
    assert_absent(&of_the_process, |module| module != "cli");
}

/// Those end the process in a panic when nobody takes what they print.
#[test]
fn nothing_is_printed_by_a_macro() {
    assert_absent(&["println!", "print!"], |_| true);
}

/// What a handler runs on a completion-queue thread must not wait. (Jobs of the workers are written
/// in the same files, so this looks for what no job there needs either.)
#[test]
fn the_calls_do_not_block() {
    let blocking = [
        ".recv()",
        ".recv_timeout(",
        ".join()",
        "block_on",
        "thread::sleep",
        "send_all",
        "bridge::wait",
    ];
    assert_absent(&blocking, |module| matches!(module, "calls" | "grpc" | "services"));
}

/// Another program may take them.
#[test]
fn the_services_stand_alone() {
    for source in sources().iter().filter(|source| source.module == "services") {
        let imports = source.text.split("crate::").skip(1);
        let of_ours: Vec<_> = imports.filter_map(|import| words(import).next()).collect();
        assert!(of_ours.iter().all(|it| *it == "proto"), "{}: {of_ours:?}", source.path.display());
    }
}

#[test]
fn there_is_no_async_runtime() {
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    for runtime in ["tokio", "async-std", "smol", "hyper", "h2"] {
        assert!(!lock.contains(&format!("name = \"{runtime}\"\n")), "{runtime} is in Cargo.lock");
    }
}

#[test]
fn every_setting_is_documented_with_its_unit() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(defaults.len(), SETTINGS.len());
    for setting in SETTINGS {
        assert!(setting.doc.trim().len() > 20, "{} is not documented", setting.name);
        let (name, doc) = (setting.name, setting.doc);
        if name.ends_with("_ms") {
            assert!(doc.contains("milliseconds"), "{name}: {doc}");
        }
        if name.ends_with("_bytes") {
            assert!(doc.to_lowercase().contains("bytes"), "{name}: {doc}");
        }
    }
}

#[test]
fn every_setting_has_a_range_and_its_default_is_in_it() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    for setting in SETTINGS {
        match (setting.range, defaults[setting.name].as_integer()) {
            (Range::Numbers(min, max), Some(default)) => {
                assert!((min..=max).contains(&(default as u64)), "{}: {default}", setting.name);
            }
            (Range::Text(kind) | Range::List(kind), None) => {
                assert!(!kind.is_empty(), "{}", setting.name)
            }
            (range, _) => panic!("{}: {range} is no range of its type", setting.name),
        }
    }
}

#[test]
fn every_limit_says_what_happens_at_it() {
    let says =
        ["RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "a larger page_size gives"];
    for setting in SETTINGS.iter().filter(|setting| setting.name.starts_with("max_")) {
        assert!(
            says.iter().any(|what| setting.doc.contains(what)),
            "{}: {}",
            setting.name,
            setting.doc
        );
    }
}

/// Raised in one place alone, a core that is built would be kept, or would be taken for one without patches.
#[test]
fn the_number_of_the_patches_of_grpc_is_the_same_wherever_it_stands() {
    let number = |file: &str, before: &str, after: &str| {
        let text = fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no {before:?} in {file}"));
        rest.split(after).next().unwrap().parse::<u16>().unwrap()
    };
    let number_of = [
        number("src/server/patches.rs", "const PATCHES: u16 = ", ";"),
        number("build/grpc-patches.cmake", "*port_num = ", ";"),
        number(".cargo/config.toml", "patches ", "\""),
    ];
    assert!(number_of.iter().all(|number| *number == number_of[0]), "{number_of:?}");
}

/// A file that is longer lacks a noun, and a function that is longer has two.
#[test]
fn files_and_functions_are_short() {
    const MAX_FILE_LINES: usize = 450;
    const MAX_FUNCTION_LINES: usize = 60;
    let mut found = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(&source.path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let path = source.path.display();
        if lines.len() > MAX_FILE_LINES {
            found.push(format!("{path} has {} lines", lines.len()));
        }
        for (first, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn "]
                .iter()
                .any(|start| code.starts_with(start));
            let indent = &line[..line.len() - code.len()];
            let end = format!("{indent}}}");
            if !is_function || code.ends_with(';') || code.ends_with('}') {
                continue;
            }
            let length = lines[first..].iter().position(|line| **line == end).unwrap_or(0) + 1;
            if length > MAX_FUNCTION_LINES {
                found.push(format!("{path}:{}: {length} lines", first + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
