//! TLS and tokens on the command line.

use std::fs;
use std::process::{Command, Output};

use billstream::{Config, Server};

use crate::{port, Guarded};

/// `billstream`, without what the caller's environment has for it.
fn billstream(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_billstream"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BILLSTREAM_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().copied()).output().unwrap()
}

fn assert_ends(output: Output, code: i32, said: &str) {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(said), "{said:?} is not in {text}");
}

#[test]
fn a_command_has_flags_and_variables_of_its_own() {
    let guarded = Guarded::new();
    let allowed = Config { tls_allowed_clients: vec!["anna".to_owned()], ..guarded.mutual() };
    let server = Server::start(allowed).unwrap();
    let pair = guarded.authority.issue("anna", &[]);
    let file = |name: &str, text: &[u8]| {
        let path = guarded.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = file("ca.pem", &guarded.authority.pem());
    let (cert, key) = (file("anna.pem", &pair.cert), file("anna.key", &pair.key));
    let (addr, token) = (port(&server), file("token", b"t-1\nand a remark\n"));
    let flags = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key, "--token-file", &token];
    let summary = ["summary", "--retry-for-secs", "0", "--addr", &addr];
    assert_ends(billstream(&[&summary[..], &flags].concat(), &[]), 0, "invoice_count  0");
    let variables = [
        ("BILLSTREAM_CLIENT_TLS_CA", &ca[..]),
        ("BILLSTREAM_CLIENT_TLS_CERT", &cert),
        ("BILLSTREAM_CLIENT_TLS_KEY", &key),
        ("BILLSTREAM_CLIENT_TOKEN_FILE", &token),
        // Of the server.
        ("BILLSTREAM_TLS_CERT", "none.pem"),
    ];
    assert_ends(billstream(&summary, &variables), 0, "invoice_count  0");
    assert_ends(billstream(&[&summary[..], &flags[..2]].concat(), &[]), 1, "no connection to");
    let missing = ["--tls-ca", "none.pem"];
    let said = "--tls-ca none.pem: No such file";
    assert_ends(billstream(&[&summary[..], &missing].concat(), &[]), 2, said);
    let said = "--tls-cert: needs tls_key";
    assert_ends(billstream(&[&summary[..], &flags[..4]].concat(), &[]), 2, said);
}

#[test]
fn a_token_is_not_sent_for_everyone_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "secret-1\n").unwrap();
    let flags = ["--addr", "bills.example:50051", "--token-file", token.to_str().unwrap()];
    let output = billstream(&[&["summary"][..], &flags].concat(), &[]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("secret-1"));
    let said = "--token-file: would go to bills.example:50051 for everyone on the way to read";
    assert_ends(output, 2, said);
    fs::write(&token, "\nsecret-1\n").unwrap();
    let output = billstream(&[&["summary"][..], &flags].concat(), &[]);
    assert_ends(output, 2, "its first line is empty");
}

#[test]
fn a_server_that_everyone_could_read_is_not_started_unless_it_is_asked_for() {
    let guarded = Guarded::new();
    let db = guarded.open().db;
    let serve = ["serve", "--listen", "0.0.0.0:0", "--db", db.to_str().unwrap()];
    assert_ends(billstream(&serve, &[]), 2, "set tls_cert and tls_key, or insecure_public");
    let check = ["check", "--insecure-public", "--db", db.to_str().unwrap()];
    Server::start(guarded.open()).unwrap().shutdown().unwrap();
    assert_ends(billstream(&check, &[]), 0, "insecure_public = true  # --insecure-public\n");
    let off = [("BILLSTREAM_INSECURE_PUBLIC", "false")];
    let check = ["check", "--db", db.to_str().unwrap()];
    let said = "insecure_public = false  # BILLSTREAM_INSECURE_PUBLIC\n";
    assert_ends(billstream(&check, &off), 0, said);
    assert_ends(billstream(&serve, &off), 2, "set tls_cert and tls_key");
}
