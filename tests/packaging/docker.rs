//! The Dockerfile, without Docker: what it names is there, and what it runs works.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::*;

/// The instructions with their arguments, each on one line.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter_map(|line| line.split_once(' '));
    instructions.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect()
}

/// The arguments of the last instruction of a name.
fn last(name: &str) -> String {
    let found = instructions().into_iter().rfind(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

/// `["a", "b"]` as a list.
fn list(json: &str) -> Vec<String> {
    let words = json[json.find('[').unwrap() + 1..].trim_end_matches(']').split(", ");
    words.map(|word| word.trim_matches('"').to_owned()).collect()
}

fn environment() -> HashMap<String, String> {
    let pairs = last("ENV");
    let pairs = pairs.split(' ').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn what_the_image_copies_and_runs_is_there() {
    let ignored = read(".dockerignore");
    for (name, rest) in instructions() {
        match &name[..] {
            "COPY" if !rest.starts_with("--from") => {
                let source = rest.split(' ').next().unwrap();
                assert!(Path::new(ROOT).join(source).exists(), "{rest}");
                assert!(!ignored.lines().any(|line| line == source), "{rest}");
            }
            "COPY" => {
                // What the first stage made with `make install DESTDIR=/image`.
                let source = rest.split(' ').find(|word| word.starts_with("/image/")).unwrap();
                let below = &source["/image/".len()..];
                assert!(below == "data" || stage().join(below).exists(), "{rest}");
            }
            "RUN" => {
                for word in rest.split(' ').filter(|word| word.starts_with("build/")) {
                    assert!(Path::new(ROOT).join(word).exists(), "{rest}");
                }
                for target in rest.split("make ").skip(1).filter_map(|r| r.split(' ').next()) {
                    let rule = format!("\n{target}:");
                    assert!(read("Makefile").contains(&rule), "{rest}");
                }
            }
            _ => {}
        }
    }
    for needed in ["Cargo.toml", "Cargo.lock", ".cargo", "build.rs", "proto", "sql", "packaging"] {
        assert!(!ignored.lines().any(|line| line == needed), "{needed}");
    }
}

#[test]
fn the_image_runs_as_nobody_and_keeps_its_data_in_a_volume() {
    let (user, group) =
        last("USER").split_once(':').map(|(u, g)| (u.to_owned(), g.to_owned())).unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    let volume = last("VOLUME");
    let copied = format!("--chown={user}:{group} /image/data {volume}");
    assert!(instructions().iter().any(|(_, rest)| rest.ends_with(&copied)), "{copied}");
    assert!(environment()["BILLSTREAM_DB"].starts_with(&format!("{volume}/")));
    assert!(environment()["BILLSTREAM_LISTEN"].ends_with(&format!(":{}", last("EXPOSE"))));
}

/// The entry point and the health check, as Docker starts them; but for the paths and the port.
#[test]
fn the_health_check_follows_the_server() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(list(&last("ENTRYPOINT")), ["billstream"]);
    let mut server = Command::new(PROGRAM);
    server.args(list(&last("CMD"))).envs(environment());
    server
        .env("BILLSTREAM_DB", dir.path().join("bills.db"))
        .env("BILLSTREAM_LISTEN", "127.0.0.1:0");
    let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("listening on ").unwrap();

    let check = list(&last("HEALTHCHECK"));
    assert_eq!(check[0], "billstream");
    let is_well = || {
        let mut health = Command::new(PROGRAM);
        health.args(&check[1..]).envs(environment()).env("BILLSTREAM_ADDR", addr);
        health.output().unwrap().status.code().unwrap()
    };
    assert_eq!(is_well(), 0);
    run(Command::new("kill").arg(server.id().to_string()));
    assert!(server.wait().unwrap().success());
    assert_eq!(is_well(), 1);
}

/// The final image has what apt has, and nothing is installed in it.
#[test]
fn the_program_needs_what_the_image_has() {
    if !skip::core_is_patched() {
        return;
    }
    let image = ["linux-vdso", "libstdc++", "libgcc_s", "libm.", "libc.", "ld-linux"];
    for line in run(Command::new("ldd").arg(PROGRAM)).lines() {
        assert!(image.iter().any(|library| line.contains(library)), "{line}");
    }
}
