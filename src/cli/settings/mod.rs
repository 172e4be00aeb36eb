//! The server's settings in layers: flags, then `BILLSTREAM_*` variables, then a file, then defaults.
//!
//! Everything here follows [`SETTINGS`]: a new field of [`Config`] is a flag (in [`args`]), a variable and a key
//! of the file (in [`file`]) without a line of these files.

mod args;
mod file;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Deserialize;
use toml::{Table, Value};

use billstream::config::{Config, GROUPS, SETTINGS};
use billstream::error::Error;

use super::failure::{Failure, Result};
use super::values::quoted;

/// The settings as given, not yet read.
pub struct Settings {
    file: Option<PathBuf>,
    given: BTreeMap<&'static str, (String, Origin)>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag(String),
    Variable(String),
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Variable(name) => f.write_str(name),
            Origin::File(path) => write!(f, "{}", path.display()),
        }
    }
}

fn flag(name: &str) -> String {
    name.replace('_', "-")
}

fn variable(name: &str) -> String {
    format!("BILLSTREAM_{}", name.to_uppercase())
}

/// The defaults as TOML. They also tell the type that each value has.
fn defaults() -> Table {
    Table::try_from(Config::default()).expect("a Config is a table of plain values")
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        args::add(command, &defaults())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Settings::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Settings, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let values: Vec<&str> =
                matches.get_many::<String>(setting.name)?.map(String::as_str).collect();
            let value = values.join(",");
            let origin = match matches.value_source(setting.name) {
                Some(ValueSource::EnvVariable) => Origin::Variable(variable(setting.name)),
                _ => Origin::Flag(format!("--{}", flag(setting.name))),
            };
            Some((setting.name, (value, origin)))
        });
        Ok(Settings { file: matches.get_one("config").cloned(), given: given.collect() })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Settings::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The configuration in force, and where each value that is not a default comes from.
pub struct InForce {
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
}

impl Settings {
    /// Those of the environment, under some flags.
    pub fn with<'a>(flags: impl Iterator<Item = (&'static str, &'a Path)>) -> Result<Settings> {
        let flags = flags.map(|(name, value)| {
            let mut flag = OsString::from(format!("--{}=", flag(name)));
            flag.push(value);
            flag
        });
        let command = Settings::augment_args(Command::new("billstream").no_binary_name(true));
        command
            .try_get_matches_from(flags)
            .and_then(|matches| Settings::from_arg_matches(&matches))
            .map_err(|error| Failure::Usage(error.to_string()))
    }

    /// Lays flags and variables over the file over the defaults.
    pub fn resolve(&self) -> Result<InForce> {
        let defaults = defaults();
        let mut table = Table::new();
        let mut origins = BTreeMap::new();
        if let Some(path) = &self.file {
            for (name, value) in file::read(path)? {
                let place = format!("{}: {name} = {value}", path.display());
                check(name, &value, &defaults[name], &place)?;
                origins.insert(name, Origin::File(path.clone()));
                table.insert(name.to_owned(), value);
            }
        }
        for (&name, (text, origin)) in &self.given {
            let place = format!("{origin} {}", quoted(text));
            let value = parse(text, &defaults[name]).unwrap_or_else(|| Value::String(text.clone()));
            check(name, &value, &defaults[name], &place)?;
            origins.insert(name, origin.clone());
            table.insert(name.to_owned(), value);
        }
        let config =
            Config::deserialize(table).map_err(|error| Failure::Usage(error.to_string()))?;
        let in_force = InForce { config, origins };
        in_force.config.validate().map_err(|error| in_force.explain(error))?;
        Ok(in_force)
    }
}

/// Text of the command line or the environment, as a value of the type that `default` has.
fn parse(text: &str, default: &Value) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        _ => None,
    }
}

/// Checks one value alone, so that a message can say which one is wrong, and where it stands.
fn check(name: &str, value: &Value, default: &Value, place: &str) -> Result<()> {
    let mut alone = Table::new();
    alone.insert(name.to_owned(), value.clone());
    let Err(error) = Config::deserialize(alone) else {
        return Ok(());
    };
    let range = SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.range);
    let expected = match (default, range) {
        (Value::Integer(_), Some(range)) => format!("expected a whole number, {range}"),
        (Value::Boolean(_), _) => "expected true or false".to_owned(),
        // The names of an enum are in the message.
        _ => error.message().to_owned(),
    };
    Err(Failure::Usage(format!("{place}: {expected}")))
}

impl InForce {
    /// Whether a flag, a variable or the file has it.
    pub fn is_given(&self, name: &str) -> bool {
        self.origins.contains_key(name)
    }

    /// A value that is well formed but cannot be: says where each setting of the message stands.
    fn explain(&self, error: Error) -> Failure {
        let Error::Invalid(violations) = &error else {
            return Failure::Usage(error.to_string());
        };
        let explained = violations.iter().map(|violation| {
            let place = match self.origins.get(violation.field.as_str()) {
                Some(Origin::File(path)) => format!("{}: {}", path.display(), violation.field),
                Some(origin) => origin.to_string(),
                None => violation.field.clone(),
            };
            format!("{place}: {}", violation.description)
        });
        Failure::Usage(explained.collect::<Vec<_>>().join("\n"))
    }
}

impl InForce {
    /// What was given, or with `all` every setting, as TOML that `--config` reads, with where each value comes
    /// from.
    pub fn to_toml(&self, all: bool) -> String {
        let table = Table::try_from(&self.config).expect("a Config is a table of plain values");
        let mut toml = String::new();
        for group in GROUPS {
            let settings = SETTINGS.iter().filter(|setting| setting.group == group.name);
            let lines = settings.filter_map(|setting| {
                let origin = self.origins.get(setting.name).map(Origin::to_string);
                let origin = origin.or(all.then(|| "default".to_owned()))?;
                Some(format!("{} = {}  # {origin}\n", setting.name, table[setting.name]))
            });
            let lines: String = lines.collect();
            if !lines.is_empty() {
                toml += &format!("[{}]\n{lines}\n", group.name);
            }
        }
        toml
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: &[(&'static str, &str)], file: Option<&str>) -> Result<InForce> {
        let given = given.iter().map(|&(name, value)| {
            let origin = Origin::Flag(format!("--{}", flag(name)));
            (name, (value.to_owned(), origin))
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        let file = file.map(|text| {
            std::fs::write(&path, text).unwrap();
            path
        });
        Settings { file, given: given.collect() }.resolve()
    }

    fn refused(given: &[(&'static str, &str)], file: Option<&str>) -> String {
        match settings(given, file) {
            Err(Failure::Usage(message)) => message,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn a_flag_goes_over_the_file_over_the_default() {
        let file = "max_exports = 1\nmax_uploads = 2\nsynchronous = \"normal\"\n";
        let config = settings(&[("max_exports", "3")], Some(file)).unwrap().config;
        let expected = Config {
            max_exports: 3,
            max_uploads: 2,
            synchronous: billstream::config::Synchronous::Normal,
            ..Config::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let in_force = settings(&[("db", "a \"b\".db"), ("max_exports", "3")], None).unwrap();
        let all = in_force.to_toml(true);
        assert!(all.contains("[server]\ndb = 'a \"b\".db'  # --db\n"), "{all}");
        assert!(all.contains("max_uploads = 256  # default\n"), "{all}");
        let given = in_force.to_toml(false);
        assert_eq!(given.lines().filter(|line| line.contains(" = ")).count(), 2, "{given}");
        for printed in [all, given] {
            assert_eq!(settings(&[], Some(&printed)).unwrap().config, in_force.config);
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let number = "expected a whole number, 1 to 100000";
        assert_eq!(
            refused(&[("max_exports", "many")], None),
            format!("--max-exports \"many\": {number}")
        );
        assert_eq!(
            refused(&[("max_exports", "-1")], None),
            format!("--max-exports \"-1\": {number}")
        );
        assert_eq!(
            refused(&[("max_exports", "0")], Some("busy_timeout_ms = 3_000_000_000"))
                .lines()
                .count(),
            2
        );
        let huge = "9223372036854775807";
        assert_eq!(
            refused(&[("max_uploads", huge)], None),
            format!("--max-uploads: {huge} is not in 1 to 100000")
        );
        let synchronous = refused(&[("synchronous", "off")], None);
        assert!(synchronous.starts_with("--synchronous \"off\": unknown variant"), "{synchronous}");
        let file = refused(&[], Some("max_exports = \"9\""));
        assert!(file.ends_with(&format!("c.toml: max_exports = \"9\": {number}")), "{file}");
        let unknown = refused(&[], Some("max_export = 9"));
        assert!(unknown.contains("c.toml: unknown setting \"max_export\""), "{unknown}");
        assert!(refused(&[], Some("max_exports = ")).contains("c.toml: TOML parse error"));
    }
}
