//! `billstream config`, `completions` and `man`: the files that are installed beside the program, which it
//! writes itself, so that they always are those of its version.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use toml::{Table, Value};

use billstream::config::{Setting, GROUPS, SETTINGS};

use super::failure::{Failure, Result};
use super::serve::print;
use super::settings::Settings;
use super::Cli;

/// Prints a configuration file with every setting and what it means
///
/// The settings given, by flag, variable or file, are in force in it; the others are comments, with their
/// defaults.
#[derive(Args)]
pub struct Config {
    #[command(flatten)]
    settings: Settings,
}

/// Prints the completions of this program for a shell
#[derive(Args)]
#[command(
    after_help = "For bash: billstream completions bash > ~/.local/share/bash-completion/completions/billstream"
)]
pub struct Completions {
    shell: Shell,
}

/// Writes the manual pages of this program: one for it, and one for each command
#[derive(Args)]
#[command(hide = true)]
pub struct Man {
    /// A directory that is there
    directory: PathBuf,
}

pub fn config(args: &Config) -> Result<()> {
    let in_force = args.settings.resolve()?;
    let values = Table::try_from(&in_force.config).expect("a Config is a table of plain values");
    let mut text = "# The settings of billstream, as `billstream serve --config FILE` reads them. A line that is a\n\
                    # comment shows the default. `billstream check --config FILE` says what is in force.\n"
        .to_owned();
    for group in GROUPS {
        text += &format!("\n\n## {}\n", group.title.trim());
        for setting in SETTINGS.iter().filter(|setting| setting.group == group.name) {
            text += &entry(setting, &values[setting.name], in_force.is_given(setting.name));
        }
    }
    print(&text)
}

fn entry(setting: &Setting, value: &Value, is_given: bool) -> String {
    let mut text = "\n".to_owned();
    for line in setting.doc.lines().map(str::trim) {
        writeln!(text, "# {line}").expect("a String takes everything");
    }
    let comment = if is_given { "" } else { "#" };
    let line = format!("# Values: {}.\n{comment}{} = {value}\n", setting.range, setting.name);
    text + &line
}

pub fn completions(args: &Completions) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "billstream", &mut text);
    print(&String::from_utf8_lossy(&text))
}

pub fn man(args: &Man) -> Result<()> {
    let failed = |error| Failure::io(&args.directory.display().to_string(), error);
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(failed)
}
