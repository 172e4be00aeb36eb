//! Variables of the environment that look like ours and are not.

use std::collections::BTreeSet;

use super::failure::{Failure, Result};
use super::nearest::nearest;

const PREFIX: &str = "BILLSTREAM_";

/// Refuses a variable of the prefix that no flag is read from: what was meant by it would be missed in silence.
pub fn check(command: &clap::Command) -> Result<()> {
    let known = variables(command);
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if known.contains(name) || is_of_others(&name[PREFIX.len()..], &value.to_string_lossy()) {
            continue;
        }
        let nearest = nearest(name, known.iter().map(String::as_str));
        return Err(Failure::Usage(format!("{name}: there is no such setting; is it {nearest}?")));
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

/// Kubernetes sets these for each service of a namespace, one called billstream or billstream-staging among
/// them; and our own tests have theirs, which the programs they start see.
fn is_of_others(name: &str, value: &str) -> bool {
    let is_of_service = |word: &str| format!("_{name}").contains(word);
    name.starts_with("TEST_")
        || is_of_service("_SERVICE_HOST")
        || is_of_service("_SERVICE_PORT")
        || (is_of_service("_PORT_") && ["TCP", "UDP", "SCTP"].iter().any(|it| name.contains(it)))
        || (format!("_{name}").ends_with("_PORT") && value.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_is_no_mistake_of_anyone() {
        for (name, value, expected) in [
            ("SERVICE_HOST", "10.0.0.1", true),
            ("SERVICE_PORT", "50051", true),
            ("SERVICE_PORT_GRPC", "50051", true),
            ("PORT", "tcp://10.0.0.1:50051", true),
            ("PORT_50051_TCP", "tcp://10.0.0.1:50051", true),
            ("PORT_50051_TCP_ADDR", "10.0.0.1", true),
            ("STAGING_SERVICE_HOST", "10.0.0.1", true),
            ("STAGING_PORT", "tcp://10.0.0.1:50051", true),
            ("TEST_SEED", "7", true),
            ("PORT", "50051", false),
            ("MAX_EXPORT", "7", false),
            ("", "", false),
        ] {
            assert_eq!(is_of_others(name, value), expected, "{name}={value}");
        }
    }
}
