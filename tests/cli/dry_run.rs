//! `--dry-run` of `import` and `reconcile`.

use std::fs;

use super::support::*;

const PAYMENTS: &str = "\
event_id,invoice_id,amount_cents,currency,received_at,reference
e1,a,400,USD,2023-01-01T00:00:00Z,
e2,b,2001,USD,2023-01-01T00:00:00Z,
e1,a,400,USD,2023-01-01T00:00:00Z,
e3,z,1,USD,2023-01-01T00:00:00Z,
e1,a,600,USD,2023-01-01T00:00:00Z,
e4,a,600,USD,2023-01-01T00:00:00Z,
e5,c,1,USD,2023-01-01T00:00:00Z,
";

#[test]
fn an_import_is_seen_before_it_is_booked() {
    let server = Server::start();
    let file = server.file("three.csv", THREE);
    let before = server.summary();
    let import = ["import", &file, "--batch-id", "b", "--format", "ndjson"];
    let dry = server.run(&[&import[..], &["--dry-run"]].concat());
    let note = "dry run: nothing was booked; the import would create 3 invoices\n";
    assert_eq!(dry.stderr, note);
    assert_eq!(server.summary(), before);
    let booked = server.run(&import).ok();
    let as_booked = booked.replace("\"totals\"", "\"validate_only\":true,\"totals\"");
    assert_eq!(dry.ok(), as_booked);
    let before = server.summary();
    let again = server.run(&["import", &file, "--batch-id", "b", "--dry-run"]);
    assert!(
        again.stderr.contains("would create nothing, since its batch id is known"),
        "{again:?}"
    );
    assert!(again.ok().contains("already_applied  true\n"));
    let taken = server.run(&["import", &file, "--dry-run"]);
    // A server that is not asked to remember names no batch.
    assert!(!taken.stderr.contains("batch"), "{taken:?}");
    taken.fails(1, &format!("{file}:2: ALREADY_EXISTS"));
    let bad = server.file("bad.csv", &format!("{HEADER}x,anna,1,XXQ,2020-01-01T00:00:00Z,\n"));
    server.run(&["import", &bad, "--dry-run"]).fails(2, ":2: column currency: \"XXQ\"");
    let cut = ["import", &file, "--dry-run", "--expect-rows", "4"];
    server.run(&cut).fails(2, "3 rows; expected 4");
    assert_eq!(server.summary(), before);
}

#[test]
fn payments_are_seen_before_they_are_booked() {
    let server = Server::with_three();
    let file = server.file("payments.csv", PAYMENTS);
    let before = server.summary();
    let dry = server.run(&["reconcile", &file, "--dry-run"]);
    let pipe = at(&["reconcile", "-", "--dry-run", "--expect-rows", "7"], &server.addr);
    let piped = run_with_stdin(&pipe, PAYMENTS);
    assert_eq!((&dry.stdout, &dry.stderr), (&piped.stdout, &piped.stderr));
    assert_eq!(server.summary(), before);
    let booked = server.run(&["reconcile", &file]);
    let note = "dry run: nothing was booked; what follows is what would become of the events\n";
    assert_eq!(dry.stderr, format!("{note}{}", booked.stderr));
    assert_eq!(dry.ok(), booked.ok());
    let bad = format!("{PAYMENTS}e6,a,ten,USD,2023-01-01T00:00:00Z,\n");
    let piped = run_with_stdin(&pipe, &bad);
    assert_eq!(piped.stdout, "");
    piped.fails(2, "stdin:9: column amount_cents: \"ten\"");
}

#[test]
fn a_file_that_is_not_there_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text_of(&dir.path().join(name));
    let (db, csv, payments) = (path("bills.db"), path("three.csv"), path("payments.csv"));
    fs::write(&csv, THREE).unwrap();
    fs::write(&payments, PAYMENTS).unwrap();
    let import = ["import", &csv, "--db", &db, "--format", "csv", "--batch-id", "b"];
    let dry = run(&[&import[..], &["--dry-run"]].concat()).ok();
    run(&["reconcile", &payments, "--db", &db, "--dry-run"]).fails(2, "No such file");
    let names = || fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names(), 2);
    let booked = run(&import).ok();
    assert_eq!(dry.replace(",validate_only", "").replace("false,true", "false"), booked);
    let before = fs::read(&db).unwrap();
    run(&["import", &csv, "--db", &db, "--dry-run"]).fails(1, ":2: ALREADY_EXISTS");
    run(&["reconcile", &payments, "--db", &db, "--dry-run"]).ok();
    assert!(fs::read(&db).unwrap() == before, "the file has changed");
}
