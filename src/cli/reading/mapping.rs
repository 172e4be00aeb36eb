//! Mapping files: the options that say how a file is written, kept beside the files that come again.

use std::path::Path;

use clap::{CommandFactory, Parser};
use toml::{Table, Value};

use super::super::failure::{Failure, Result};
use super::super::nearest::nearest;
use super::layout::{LayoutArgs, Pair};

/// The options as a command line of their own, so that each value is looked at in one place.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Options {
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Reads the mapping file `path`.
pub fn read(path: &Path) -> Result<LayoutArgs> {
    let usage =
        |message: &str| Failure::Usage(format!("{}: {}", path.display(), message.trim_end()));
    let text = std::fs::read_to_string(path).map_err(|error| usage(&error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| usage(&error.to_string()))?;
    options(table).map_err(|message| usage(&message))
}

fn options(table: Table) -> std::result::Result<LayoutArgs, String> {
    let command = Options::command();
    let flags = || command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    let known: Vec<_> =
        flags().map(|(flag, _)| flag.replace('-', "_")).filter(|key| key != "mapping").collect();
    let (mut args, mut map, mut set, mut ignore) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (key, value) in table {
        if !known.contains(&key) {
            let is_it = nearest(&key, known.iter().map(String::as_str));
            return Err(format!("unknown key {key:?}; is it {is_it}?"));
        }
        match (&key[..], value) {
            ("map", value) => map = pairs("map", value)?,
            ("set", value) => set = pairs("set", value)?,
            ("ignore_columns", value) => ignore = names(value)?,
            (_, Value::String(value)) => args.push(format!("--{}={value}", key.replace('_', "-"))),
            (_, Value::Boolean(true)) => args.push(format!("--{}", key.replace('_', "-"))),
            (_, Value::Boolean(false)) => {}
            (_, other) => {
                return Err(format!("{key} = {other}: expected a text in quotes, or true"))
            }
        }
    }
    let mut options = Options::try_parse_from(args).map_err(|error| in_words(&error))?.layout;
    (options.map, options.set, options.ignore_columns) = (map, set, ignore);
    Ok(options)
}

fn pairs(key: &str, value: Value) -> std::result::Result<Vec<Pair>, String> {
    let wrong = |value: &dyn std::fmt::Display| {
        format!("{key}: {value}: expected a table with texts in quotes, such as [{key}]")
    };
    let Value::Table(table) = value else { return Err(wrong(&value)) };
    let pair = |(column, value)| match value {
        Value::String(value) => Ok(Pair { column, value }),
        other => Err(wrong(&other)),
    };
    table.into_iter().map(pair).collect()
}

fn names(value: Value) -> std::result::Result<Vec<String>, String> {
    let wrong = || "ignore_columns: expected a list of texts, such as [\"Country\"]".to_owned();
    let Value::Array(list) = value else { return Err(wrong()) };
    let name = |value: Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    list.into_iter().map(name).collect()
}

/// What clap says of a value, without its words for a command line.
fn in_words(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::notation::Notation;
    use super::super::encoding::Charset;
    use super::*;

    fn read(text: &str) -> std::result::Result<LayoutArgs, String> {
        options(text.parse().unwrap())
    }

    #[test]
    fn a_file_says_all_that_options_say() {
        let all = read(
            "delimiter = ';'\nencoding = 'utf-16'\ndecimal = ','\nthousands = '.'\n\
             time_format = '%d.%m.%Y'\ntimezone = 'Europe/Berlin'\nlowercase_currencies = true\n\
             ignore_columns = ['a,b', 'c']\nignore_extra_columns = false\n\
             [map]\nid = 'Re, Nr. = 1'\n[set]\ncurrency = 'EUR'\n",
        )
        .unwrap();
        let pair = |column: &str, value: &str| Pair { column: column.into(), value: value.into() };
        assert_eq!(all.map, [pair("id", "Re, Nr. = 1")]);
        assert_eq!(all.set, [pair("currency", "EUR")]);
        assert_eq!((all.delimiter, all.encoding), (Some(b';'), Charset::parse("utf-16").ok()));
        let Notation { decimal, thousands, time_format, timezone } = all.notation;
        assert_eq!((decimal, thousands), (Some(','), Some('.')));
        assert_eq!(time_format.as_deref(), Some("%d.%m.%Y"));
        assert_eq!(timezone.as_deref(), Some("Europe/Berlin"));
        assert_eq!(all.ignore_columns, ["a,b", "c"]);
        assert!(all.lowercase_currencies && !all.ignore_extra_columns);
        // Whoever adds an option adds it here.
        assert_eq!(Options::command().get_arguments().count(), 12);
    }

    #[test]
    fn what_a_file_cannot_say_is_named() {
        for (text, expected) in [
            ("delimeter = ';'", "unknown key \"delimeter\"; is it delimiter?"),
            ("mapping = 'other.toml'", "unknown key \"mapping\"; is it map?"),
            (
                "delimiter = ';;'",
                "invalid value ';;' for '--delimiter <CHAR>': expected tab, or one",
            ),
            (
                "encoding = 'klingon'",
                "invalid value 'klingon' for '--encoding <NAME>': expected utf-8",
            ),
            ("delimiter = 1", "delimiter = 1: expected a text in quotes, or true"),
            ("delimiter = true", "a value is required for '--delimiter <CHAR>'"),
            ("lowercase_currencies = 'yes'", "unexpected value 'yes' for '--lowercase-currencies'"),
            (
                "map = 'id=No'",
                "map: \"id=No\": expected a table with texts in quotes, such as [map]",
            ),
            ("[set]\ncents = 1", "set: 1: expected a table with texts in quotes, such as [set]"),
            ("ignore_columns = 'a'", "ignore_columns: expected a list of texts"),
        ] {
            let wrong = read(text).err().expect(text);
            assert!(wrong.starts_with(expected), "{text}: {wrong}");
        }
    }
}
