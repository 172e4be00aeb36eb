//! Variables of the environment that look like ours and are not.

use std::collections::BTreeSet;

use super::failure::{Failure, Result};
use super::stderr::say;

const PREFIX: &str = "BILLSTREAM_";

/// Refuses a variable that is one of ours mistyped: its setting would be missed in silence. Another one of
/// the prefix only gets a line: Kubernetes sets some for a service called billstream.
pub fn check(command: &clap::Command) -> Result<()> {
    let known = variables(command);
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if known.contains(name) {
            continue;
        }
        match nearest(name, &known) {
            Some(known) => {
                let message = format!("{name}: there is no such setting; is it {known}?");
                return Err(Failure::Usage(message));
            }
            None => say(format!("{name} is no setting of billstream, and is ignored")),
        }
    }
    Ok(())
}

/// Every variable that a flag of any command is read from.
fn variables(command: &clap::Command) -> BTreeSet<String> {
    let commands = command.get_subcommands().chain([command]);
    let args = commands.flat_map(|command| command.get_arguments());
    let names = args.filter_map(|arg| arg.get_env());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// The one that `name` differs from by a letter, or in a quarter of them.
fn nearest<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let name = name.to_uppercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&name, known);
    let nearest = known.iter().min_by_key(|known| distance(known))?;
    let letters = nearest.len() - PREFIX.len();
    (distance(nearest) <= (letters / 4).max(1)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_like_one_that_is_known() {
        let names = ["ADDR", "DB", "LISTEN", "MAX_EXPORTS", "MAX_UPLOADS", "PARK_AFTER_MS"];
        let known = names.map(|name| format!("{PREFIX}{name}")).into();
        for (name, expected) in [
            ("ADR", Some("ADDR")),
            ("ADDRR", Some("ADDR")),
            ("MAX_EXPORT", Some("MAX_EXPORTS")),
            ("MAX_EXPROTS", Some("MAX_EXPORTS")),
            ("Max_Uploads", Some("MAX_UPLOADS")),
            ("LISTN", Some("LISTEN")),
            ("PARK_AFTER", Some("PARK_AFTER_MS")),
            ("PORT", None),
            ("SERVICE_HOST", None),
            ("PORT_50051_TCP_ADDR", None),
            ("TEST_SEED", None),
        ] {
            let nearest = nearest(&format!("{PREFIX}{name}"), &known);
            assert_eq!(nearest.map(|known| &known[PREFIX.len()..]), expected, "{name}");
        }
    }
}
