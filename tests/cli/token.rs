//! `token new`, and a server with the file that it writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::support::*;

#[test]
fn a_token_goes_to_stdout_and_its_line_to_stderr_or_into_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let path = text_of(&file);
    let made = run(&["token", "new", "reports", "--rights", "read"]);
    let (line, token) = (made.stderr.clone(), made.ok());
    assert!(token.starts_with("bst_") && token.len() == 4 + 64 + 1, "{token}");
    assert!(line.starts_with("reports read sha256:") && line.len() == 20 + 64 + 1, "{line}");

    fs::write(&file, line.trim_end()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let args = ["token", "new", "ops", "--rights", "admin,read", "--append-to", &path];
    let other = run(&[&args[..], &["--expires", "2100-01-01"]].concat());
    assert_eq!(other.stderr, format!("{path}: has ops now\n"));
    let other = other.ok();
    assert_ne!(other, token);
    let text = fs::read_to_string(&file).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    assert_eq!(first, line.trim_end());
    let begins = second.starts_with("ops read,admin sha256:");
    assert!(begins && second.ends_with(" expires=2100-01-01T00:00:00Z\n"), "{second}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

    // A new file is for its owner alone.
    let new = text_of(&dir.path().join("new"));
    run(&["token", "new", "a", "--rights", "write", "--append-to", &new]).ok();
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_a_server_would_refuse_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    fs::write(&file, "a read cert\nb rea cert\n").unwrap();
    let path = text_of(&file);
    let args = ["token", "new", "c", "--rights", "read", "--append-to", &path];
    run(&args).fails(2, &format!("{path}: line 2: expected rights: read, write, admin"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "a read cert\nb rea cert\n");
    for (args, message) in [
        (vec!["c", "--rights", "all"], "expected rights: read, write, admin"),
        (vec!["c d", "--rights", "read"], "expected a name of 1 to 255"),
        (vec!["c"], "--rights <RIGHTS>"),
        (vec!["c", "--rights", "read", "--expires", "2001-01-01"], "the time is past"),
        (vec!["c", "--rights", "read", "--expires", "soon"], "expected an RFC 3339 time"),
    ] {
        run(&[vec!["token", "new"], args].concat()).fails(2, message);
    }
    let nowhere = text_of(&dir.path().join("absent/tokens"));
    run(&["token", "new", "c", "--rights", "read", "--append-to", &nowhere]).fails(1, &nowhere);
}

#[test]
fn a_server_with_tokens_refuses_a_client_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text_of(&dir.path().join(name));
    run(&["token", "new", "a", "--rights", "read", "--append-to", &path("tokens")]).ok();
    let args = [
        "serve",
        "--db",
        &path("bills.db"),
        "--listen",
        "127.0.0.1:0",
        "--tokens",
        &path("tokens"),
    ];
    let mut process = Process::start(billstream(&args));
    let line = process.lines().recv_timeout(DEADLINE).unwrap();
    let addr = line.strip_prefix("listening on ").unwrap();
    run(&at(&["summary"], addr)).fails(1, "UNAUTHENTICATED: missing token");
    process.says("GetSummary was refused: missing token; 1 so far");
    process.signal("TERM");
    assert_eq!(process.wait(), 0);
}
