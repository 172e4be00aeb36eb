//! The settings of a file: in tables, or without them, as all were written before there were tables.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use toml::{Table, Value};

use billstream::config::{Setting, GROUPS, SETTINGS};

use super::super::failure::{Failure, Result};
use super::super::nearest::nearest;

/// Reads `path`. Whether each value is one of its setting is looked at later.
pub fn read(path: &Path) -> Result<Vec<(&'static str, Value)>> {
    let usage =
        |message: &str| Failure::Usage(format!("{}: {}", path.display(), message.trim_end()));
    // A pipe that nobody writes into would be waited for.
    if std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo()) {
        return Err(usage("it is a pipe; a file is expected"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| usage(&error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| usage(&error.to_string()))?;
    settings(table).map_err(|message| usage(&message))
}

fn settings(table: Table) -> std::result::Result<Vec<(&'static str, Value)>, String> {
    let mut found = Vec::new();
    for (key, value) in table {
        match (GROUPS.iter().find(|group| group.name == key), value) {
            (Some(group), Value::Table(inside)) => {
                for (key, value) in inside {
                    found.push((in_table(group.name, &key)?, value));
                }
            }
            (Some(_), value) => return Err(format!("{key} = {value}: it is a table, [{key}]")),
            (None, Value::Table(_)) if setting(&key).is_none() => {
                let tables = GROUPS.iter().map(|group| group.name);
                return Err(format!("unknown table [{key}]; is it [{}]?", nearest(&key, tables)));
            }
            (None, value) => {
                let setting = setting(&key).ok_or_else(|| unknown(&key))?;
                found.push((setting.name, value));
            }
        }
    }
    let mut names = BTreeSet::new();
    match found.iter().find(|(name, _)| !names.insert(*name)) {
        Some((name, _)) => {
            Err(format!("{name} is there twice: in its table, and above all tables"))
        }
        None => Ok(found),
    }
}

fn in_table(table: &str, key: &str) -> std::result::Result<&'static str, String> {
    let setting = setting(key).ok_or_else(|| unknown(key))?;
    match setting.group == table {
        true => Ok(setting.name),
        false => Err(format!("{key} is not of [{table}], but of [{}]", setting.group)),
    }
}

fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn unknown(key: &str) -> String {
    let name = nearest(key, SETTINGS.iter().map(|setting| setting.name));
    let group = setting(name).map_or("", |setting| setting.group);
    format!("unknown setting {key:?}; is it {name} of [{group}]?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Vec<(&'static str, Value)>, String> {
        settings(text.parse().unwrap())
    }

    #[test]
    fn tables_and_flat_keys_say_the_same() {
        let expected = [("db", "a.db".into()), ("cache_bytes", Value::Integer(70_000))];
        for text in [
            "db = 'a.db'\ncache_bytes = 70_000",
            "db = 'a.db'\n[sqlite]\ncache_bytes = 70_000",
            "server.db = 'a.db'\nsqlite.cache_bytes = 70_000",
        ] {
            let mut found = read(text).unwrap();
            found.sort_by_key(|(name, _)| *name != "db");
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_named_with_the_nearest_that_is() {
        for (text, message) in [
            ("max_export = 9", "unknown setting \"max_export\"; is it max_exports of [exports]?"),
            (
                "[uploads]\nmax_uplods = 9",
                "unknown setting \"max_uplods\"; is it max_uploads of [uploads]?",
            ),
            ("[sqllite]\ncache_bytes = 9", "unknown table [sqllite]; is it [sqlite]?"),
            ("[uploads]\nmax_exports = 9", "max_exports is not of [uploads], but of [exports]"),
            ("exports = 9", "exports = 9: it is a table, [exports]"),
            (
                "max_exports = 1\n[exports]\nmax_exports = 1",
                "max_exports is there twice: in its table, and above all tables",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }

    #[test]
    fn no_table_has_the_name_of_a_setting() {
        assert!(GROUPS.iter().all(|group| setting(group.name).is_none()));
    }
}
