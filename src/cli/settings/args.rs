//! The flags of the settings, and their help in two lengths.

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use billstream::config::{Range, Setting, GROUPS, SETTINGS};

use super::{flag, variable};

/// Adds a flag for each setting, under the heading of its group; `--help` shows those that are often needed.
pub fn add(command: Command, defaults: &Table) -> Command {
    let file = Arg::new("config")
        .long("config")
        .env("BILLSTREAM_CONFIG")
        .hide_env(true)
        .value_name("FILE")
        .value_parser(clap::value_parser!(std::path::PathBuf))
        .help("A TOML file with settings: the names of the flags, with _ for -, in their [tables]")
        .long_help(
            "A TOML file with settings: the names of the flags, with _ for -, in the [tables] that stand in the \
             headings below [env: BILLSTREAM_CONFIG]",
        );
    let help =
        Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help(
            "Prints this: the settings that matter most. Each has a variable too, such as BILLSTREAM_MAX_EXPORTS",
        );
    let help_all = Arg::new("help_all").long("help-all").action(ArgAction::HelpLong).help(
        "Prints every setting, with what happens at it, its range, its default and its variable",
    );
    let settings = GROUPS.iter().flat_map(|group| {
        let heading = format!("{} [{}]", group.title, group.name);
        let settings = SETTINGS.iter().filter(|setting| setting.group == group.name);
        settings
            .map(move |setting| arg(setting, &defaults[setting.name]).help_heading(heading.clone()))
    });
    command.disable_help_flag(true).args([file, help, help_all]).args(settings)
}

fn arg(setting: &Setting, default: &Value) -> Arg {
    let variable = variable(setting.name);
    let doc: Vec<_> = setting.doc.lines().map(str::trim).collect();
    let doc = doc.join(" ");
    let first = doc.split_once(". ").map_or(&doc[..], |(first, _)| first).trim_end_matches('.');
    let range = setting.range;
    let arg = Arg::new(setting.name)
        .long(flag(setting.name))
        .hide_env(true)
        .hide_short_help(!setting.is_often_needed)
        .value_name(if default.is_integer() { "N" } else { "VALUE" })
        .allow_negative_numbers(true)
        .help(format!("{first} [default: {default}]"))
        .long_help(format!("{doc} [default: {default}; {range}; env: {variable}]"))
        .env(variable);
    match (setting.range, default) {
        (Range::List(_), _) => arg.action(ArgAction::Append),
        // Alone it is `true`.
        (_, Value::Boolean(_)) => {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bool_is_a_flag_alone_or_with_its_value() {
        let setting = Setting {
            name: "is_open",
            group: "server",
            doc: "Whether.\n It is.\n",
            range: Range::Text("true or false"),
            is_often_needed: true,
        };
        let read = |args: &[&str]| {
            let command = Command::new("x").arg(arg(&setting, &Value::Boolean(false)));
            let matches = command.try_get_matches_from([&["x"], args].concat());
            matches.map(|it| it.get_one::<String>("is_open").cloned())
        };
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&["--is-open"]).unwrap().as_deref(), Some("true"));
        assert_eq!(read(&["--is-open=false"]).unwrap().as_deref(), Some("false"));
        assert!(read(&["--is-open", "false"]).is_err());
    }

    #[test]
    fn the_short_help_has_a_dozen_and_the_long_one_all() {
        let defaults = super::super::defaults();
        let mut command = add(Command::new("serve").term_width(0), &defaults);
        let (short, long) =
            (command.render_help().to_string(), command.render_long_help().to_string());
        let shown = |help: &str, setting: &Setting| {
            // That of a switch has its value behind it, in brackets.
            let mut words = help.split_whitespace().filter_map(|word| word.split('[').next());
            words.any(|word| word == format!("--{}", flag(setting.name)))
        };
        for setting in SETTINGS {
            assert_eq!(
                shown(&short, setting),
                setting.is_often_needed,
                "{}: {short}",
                setting.name
            );
            assert!(shown(&long, setting), "{}: {long}", setting.name);
            assert!(long.contains(&format!("env: {}]", variable(setting.name))), "{long}");
        }
        let often = SETTINGS.iter().filter(|setting| setting.is_often_needed).count();
        assert!((8..=16).contains(&often), "{often}");
        for group in GROUPS {
            assert!(long.contains(&format!("{} [{}]:\n", group.title, group.name)), "{long}");
        }
        assert!(short.contains("--help-all"), "{short}");
    }
}
