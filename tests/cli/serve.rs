//! `serve`, `check` and `backup`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

use super::support::*;

#[test]
fn sigterm_and_sigint_end_the_server_with_code_0_and_nothing_is_lost() {
    let mut server = Server::with_three();
    let before = server.summary();
    for signal in ["TERM", "INT"] {
        server.process.signal(signal);
        assert_eq!(server.process.wait(), 0, "{signal}");
        (server.process, server.addr) = serve(&server.path("bills.db"));
        assert_eq!(server.summary(), before);
    }
}

#[test]
fn a_stop_is_bounded_with_a_stalled_export_open() {
    let dir = tempfile::tempdir().unwrap();
    let db = text_of(&dir.path().join("bills.db"));
    let args = ["serve", "--db", &db, "--listen", "127.0.0.1:0", "--drain-timeout-ms", "600000"];
    let mut process = Process::start(billstream(&args));
    let line = process.lines().recv_timeout(DEADLINE).unwrap();
    let addr = line.strip_prefix("listening on ").unwrap();
    let csv = dir.path().join("many.csv");
    fs::write(&csv, generate(50_000)).unwrap();
    run(&at(&["import", &text_of(&csv)], addr)).ok();
    // One line is read and no more.
    let mut export = Process::start(billstream(&at(&["export", "--retry-for-secs", "0"], addr)));
    let mut stdout = BufReader::new(export.child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let start = Instant::now();
    process.signal("TERM");
    assert_eq!(process.wait(), 0);
    println!("stopped after {:?}", start.elapsed());
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let server = Server::start();
    let file = server.file("c.toml", "max_exports = 1\nmax_uploads = 1\nmax_page_size = 1\n");
    let db = text_of(&server.path("bills.db"));
    let mut command =
        billstream(&["check", "--all", "--db", &db, "--config", &file, "--max-exports", "3"]);
    command.env("BILLSTREAM_MAX_EXPORTS", "2").env("BILLSTREAM_MAX_UPLOADS", "2");
    let printed = Process::start(command).output().ok();
    for line in [
        "max_exports = 3  # --max-exports".to_owned(),
        "max_uploads = 2  # BILLSTREAM_MAX_UPLOADS".to_owned(),
        format!("max_page_size = 1  # {file}"),
        "max_reconciles = 1024  # default".to_owned(),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "no {line:?} in {printed}");
    }
}

#[test]
fn it_listens_on_every_address_that_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let db = text_of(&dir.path().join("bills.db"));
    let unix = format!("unix:{}", text_of(&dir.path().join("bills.sock")));
    let two = format!("127.0.0.1:0,{unix}");
    let args = ["serve", "--db", &db, "--listen", &two, "--listen", "127.0.0.1:0"];
    let mut process = Process::start(billstream(&args));
    let lines = process.lines();
    let addresses: Vec<_> = (0..3).map(|_| lines.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(addresses[1], format!("listening on {unix}"));
    for address in [&addresses[0], &addresses[2]] {
        let address = address.strip_prefix("listening on ").unwrap();
        assert!(run(&at(&["summary"], address)).ok().contains("invoice_count"));
    }
    process.signal("TERM");
    assert_eq!(process.wait(), 0);
    run(&["serve", "--db", &db, "--listen", ""]).fails(2, "--listen: nobody could call");
}

#[test]
fn a_wrong_configuration_is_exit_code_2_and_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    let file = |text: &str| {
        fs::write(&config, text).unwrap();
        run(&["check", "--config", &text_of(&config)])
    };
    file("max_export = 9")
        .fails(2, "c.toml: unknown setting \"max_export\"; is it max_exports of [exports]?");
    file("[uploads]\nmax_exports = 9")
        .fails(2, "max_exports is not of [uploads], but of [exports]");
    file("[exports]\nmax_exports = 0").fails(2, "c.toml: max_exports: 0 is not in 1 to 100000");
    file("max_exports = \"9\"")
        .fails(2, "max_exports = \"9\": expected a whole number, 1 to 100000");
    file("max_exports = ").fails(2, "c.toml: TOML parse error");
    file("synchronous = \"off\"").fails(2, "expected `full` or `normal`");
    run(&["serve", "--max-exports", "many"])
        .fails(2, "--max-exports \"many\": expected a whole number");
    run(&["serve", "--max-exports", "0"]).fails(2, "--max-exports: 0 is not in 1 to 100000");
    run(&["serve", "--config", "absent.toml"]).fails(2, "absent.toml: No such file");
    let pipe = text_of(&dir.path().join("pipe"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    run(&["check", "--config", &pipe]).fails(2, "it is a pipe");
    let mut command = billstream(&["serve"]);
    command.env("BILLSTREAM_MAX_UPLOADS", "-1");
    Process::start(command)
        .output()
        .fails(2, "BILLSTREAM_MAX_UPLOADS \"-1\": expected a whole number");
}

/// The binary with what needs no database: the address serves everyone, and the power may take what was said.
#[test]
fn check_and_serve_say_what_is_unwise_and_what_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let db = text_of(&dir.path().join("bills.db"));
    let public = "--insecure-public";
    let given = ["--db", &db, "--listen", "0.0.0.0:0", public, "--synchronous", "normal"];
    let mut command = billstream(&[&["serve"], &given[..]].concat());
    let mut process = Process::start_with(command.env("RUST_LOG", "info"));
    let line = process.lines().recv_timeout(DEADLINE).unwrap();
    let port = line.strip_prefix("listening on 0.0.0.0:").unwrap();
    process.says(&format!("try it from here: billstream summary --addr 127.0.0.1:{port}\n"));
    let warnings = ["0.0.0.0:0 is not loopback", "synchronous is normal: what was acknowledged"];
    for warning in warnings {
        process.says(warning);
    }
    process.signal("TERM");
    assert_eq!(process.wait(), 0);
    assert!(!process.stderr().contains("holds at most"), "a formula is for those who ask");

    let report = run(&[&["check"], &given[..]].concat()).ok();
    for warning in warnings {
        assert!(report.contains(&format!("warning: {warning}")), "{report}");
    }
    for line in ["[sqlite]", "synchronous = \"normal\"  # --synchronous"] {
        assert!(report.lines().any(|printed| printed == line), "{report}");
    }
    assert!(report.contains("memory for all clients: at most "), "{report}");
    assert!(!report.contains("# default"), "{report}");
}

#[test]
fn the_help_shows_a_dozen_settings_and_all_where_it_is_asked_for_all() {
    let [help, all] = ["--help", "--help-all"].map(|flag| run(&["serve", flag]).ok());
    for help in [&help, &all] {
        assert!(help.contains("--max-exports") && help.contains("--help-all"), "{help}");
    }
    assert!(!help.contains("--park-after-ms"), "{help}");
    assert!(all.contains("env: BILLSTREAM_PARK_AFTER_MS]"), "{all}");
}

#[test]
fn a_server_that_cannot_start_says_why_with_exit_code_1() {
    let server = Server::with_three();
    let before = server.summary();
    let dir = text_of(server.dir.path());
    run(&["serve", "--db", &dir, "--listen", "127.0.0.1:0"]).fails(1, "directory");
    let other = text_of(&server.path("other.db"));
    run(&["serve", "--db", &other, "--listen", &server.addr]).fails(1, &server.addr);
    let same = text_of(&server.path("bills.db"));
    run(&["serve", "--db", &same, "--listen", "127.0.0.1:0"]).fails(1, "bills.db");
    let text = server.file("text.db", "this is no database, but a text of some length\n");
    run(&["serve", "--db", &text, "--listen", "127.0.0.1:0"]).fails(1, "text.db");
    assert_eq!(fs::read_to_string(&text).unwrap().len(), 47);
    run(&["serve", "--db", "/proc/nowhere/a.db", "--listen", "127.0.0.1:0"])
        .fails(1, "/proc/nowhere");
    assert_eq!(server.summary(), before);
}

#[test]
fn check_reports_a_sound_database_and_one_that_is_not() {
    let mut server = Server::with_three();
    let db = text_of(&server.path("bills.db"));
    let report = run(&["check", "--db", &db]).ok();
    assert!(report.contains("3 invoices, last sequence 3"), "{report}");
    server.process.signal("TERM");
    server.process.wait();
    let connection = rusqlite::Connection::open(&db).unwrap();
    connection.execute("UPDATE currency_totals SET total_cents = 1", []).unwrap();
    drop(connection);
    run(&["check", "--db", &db]).fails(1, "2 faults");
    run(&["check", "--db", &text_of(&server.path("absent.db"))]).fails(1, "absent.db");
    assert!(!server.path("absent.db").exists());
}

#[test]
fn a_backup_is_made_while_serving_and_serves_the_same() {
    let server = Server::with_three();
    let (db, copy) = (text_of(&server.path("bills.db")), text_of(&server.path("copy.db")));
    run(&["backup", "--db", &db, &copy]).ok();
    let (_process, addr) = serve(Path::new(&copy));
    let copied = run(&at(&["export", "--format", "ndjson"], &addr)).ok();
    assert_eq!(copied, server.run(&["export", "--format", "ndjson"]).ok());
    run(&["backup", "--db", &db, &copy]).fails(1, "copy.db exists");
}

#[test]
fn a_backup_is_of_the_database_that_the_configuration_names() {
    let server = Server::with_three();
    let (db, copy) = (text_of(&server.path("bills.db")), text_of(&server.path("copy.db")));
    let config = server.file("c.toml", &format!("db = {db:?}\nmax_exports = 3\n"));
    for command in [
        &mut billstream(&["backup", "--config", &config, &copy]),
        billstream(&["backup", &copy]).env("BILLSTREAM_CONFIG", &config),
        billstream(&["backup", &copy]).env("BILLSTREAM_DB", &db),
    ] {
        Process::start_with(command).output().ok();
        assert!(run(&["check", "--db", &copy]).ok().contains("3 invoices, last sequence 3"));
        fs::remove_file(&copy).unwrap();
    }
    let wrong = server.file("wrong.toml", "max_export = 3\n");
    run(&["backup", "--config", &wrong, &copy]).fails(2, "unknown setting \"max_export\"");
    assert!(!Path::new(&copy).exists());
}

#[test]
fn a_mistyped_variable_is_named_with_the_one_it_is_like() {
    let server = Server::with_three();
    let db = text_of(&server.path("bills.db"));
    let summary = at(&["summary"], &server.addr);
    for (args, name, known) in [
        (&["check", "--db", &db][..], "BILLSTREAM_MAX_EXPORT", "BILLSTREAM_MAX_EXPORTS"),
        (&["check", "--db", &db], "BILLSTREAM_PARK_AFTER", "BILLSTREAM_PARK_AFTER_MS"),
        (&["serve", "--db", &db], "BILLSTREAM_LISTENN", "BILLSTREAM_LISTEN"),
        (&["serve", "--db", &db], "BILLSTREAM_CONFG", "BILLSTREAM_CONFIG"),
        (&summary, "BILLSTREAM_ADR", "BILLSTREAM_ADDR"),
    ] {
        let message = format!("error: {name}: there is no such setting; is it {known}?");
        Process::start_with(billstream(args).env(name, "1")).output().fails(2, &message);
    }
    // What Kubernetes sets for a service of this name is no mistake of anyone.
    let mut command = billstream(&summary);
    command.env("BILLSTREAM_SERVICE_HOST", "10.0.0.1").env("BILLSTREAM_PORT", "tcp://10.0.0.1:1");
    Process::start(command).output().ok();
}

#[test]
fn the_log_is_text_or_an_object_a_line() {
    let log_of = |format: &str| {
        let dir = tempfile::tempdir().unwrap();
        let db = text_of(&dir.path().join("bills.db"));
        let mut command = billstream(&["serve", "--db", &db, "--listen", "127.0.0.1:0"]);
        command.args(["--log-format", format]).env("RUST_LOG", "info");
        let mut process = Process::start(command);
        process.lines().recv_timeout(DEADLINE).unwrap();
        process.signal("TERM");
        process.output().stderr
    };
    for line in log_of("json").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
    assert!(log_of("json").contains("stopped after"));
    assert!(log_of("text").contains("INFO"), "{}", log_of("text"));
}
