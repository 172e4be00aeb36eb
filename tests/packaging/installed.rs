//! The files that `make install` installs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

fn files(dir: &Path) -> BTreeSet<String> {
    let list = run(Command::new("find").args([".", "-type", "f"]).current_dir(dir));
    list.lines().map(|line| line[2..].to_owned()).collect()
}

/// The commands that `--help` shows.
fn commands() -> Vec<String> {
    let help = run(Command::new(PROGRAM).arg("--help"));
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // A long description goes on below its beginning.
    let lines = list.lines().filter(|line| !line.starts_with("   "));
    let names = lines.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

#[test]
fn each_file_has_its_place() {
    let mut expected: BTreeSet<String> = [
        "etc/billstream/billstream.toml",
        "usr/bin/billstream",
        "usr/lib/systemd/system/billstream.service",
        "usr/lib/sysusers.d/billstream.conf",
        "usr/share/bash-completion/completions/billstream",
        "usr/share/fish/vendor_completions.d/billstream.fish",
        "usr/share/man/man1/billstream.1",
        // That of a command of a command.
        "usr/share/man/man1/billstream-token-new.1",
        "usr/share/zsh/site-functions/_billstream",
    ]
    .map(str::to_owned)
    .into();
    let commands = commands();
    assert!(commands.len() >= 12, "{commands:?}");
    expected.extend(commands.iter().map(|name| format!("usr/share/man/man1/billstream-{name}.1")));
    assert_eq!(files(stage()), expected);
}

#[test]
fn a_second_installation_keeps_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("etc/billstream/billstream.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "max_exports = 3\n").unwrap();
    install(dir.path());
    assert_eq!(fs::read_to_string(&config).unwrap(), "max_exports = 3\n");
}

/// As installed it sets the database alone, and each line that is a comment would change nothing.
#[test]
fn the_configuration_has_every_setting_at_its_default() {
    let installed = fs::read_to_string(stage().join("etc/billstream/billstream.toml")).unwrap();
    let lines = installed.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.collect::<Vec<_>>(), ["db = \"/var/lib/billstream/billstream.db\""]);

    let is_setting = |line: &&str| line.split(" = ").next().is_some_and(|name| !name.contains(' '));
    let all = installed.lines().map(|line| line.trim_start_matches('#')).filter(is_setting);
    let table: toml::Table = all.collect::<Vec<_>>().join("\n").parse().unwrap();
    let mut defaults = toml::Table::try_from(billstream::Config::default()).unwrap();
    defaults.insert("db".into(), "/var/lib/billstream/billstream.db".into());
    assert_eq!(table, defaults);
}

#[test]
fn the_manual_pages_are_shown() {
    if !is_there("man") {
        return skip::skip("man is not here; the package man-db has it");
    }
    for page in fs::read_dir(stage().join("usr/share/man/man1")).unwrap() {
        let page = page.unwrap().path();
        let mut man = Command::new("man");
        man.args(["--local-file", "--warnings", "--encoding=UTF-8"]).arg(&page);
        let output = man.env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8").output().unwrap();
        let (text, warnings) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && warnings.is_empty(), "{}: {warnings}", page.display());
        let name = page.file_stem().unwrap().to_str().unwrap();
        assert!(text.contains("SYNOPSIS") && text.contains(name), "{text}");
    }
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = stage().join("usr/share/bash-completion/completions/billstream");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c"]).arg(
        "source \"$0\" && complete -p billstream >&2
         complete() { COMP_WORDS=(billstream $1 $2) COMP_CWORD=$#; COMPREPLY=()
                      _billstream billstream \"${COMP_WORDS[COMP_CWORD]}\" \"$1\"; echo ${COMPREPLY[@]}; }
         complete ser
         complete completions fi
         complete serve --drain",
    );
    assert_eq!(run(bash.arg(script)), "serve\nfish\n--drain-timeout-ms\n");
}

/// Each shell, where it is there, reads its own without a complaint.
#[test]
fn zsh_and_fish_read_theirs() {
    let share = stage().join("usr/share");
    for (shell, file, beginning) in [
        ("zsh", "zsh/site-functions/_billstream", "#compdef billstream\n"),
        ("fish", "fish/vendor_completions.d/billstream.fish", "# Print an optspec"),
    ] {
        let text = fs::read_to_string(share.join(file)).unwrap();
        assert!(text.starts_with(beginning), "{text}");
        assert!(text.contains("drain-timeout-ms"), "{text}");
        if is_there(shell) {
            run(Command::new(shell).arg("-n").arg(share.join(file)));
        }
    }
}
