//! `export`.

use std::io::{BufRead, BufReader};

use super::support::*;

#[test]
fn an_export_can_be_imported_again_in_both_formats() {
    let server = Server::with_three();
    let ndjson = server.run(&["export", "--format", "ndjson"]).ok();
    let csv = server.run(&["export", "--columns", "all"]).ok();
    assert!(csv.starts_with(&format!("{COLUMNS},status,paid_cents,sequence\na,anna,1000,USD,")));
    for (format, text) in [("ndjson", &ndjson), ("csv", &csv)] {
        let other = Server::start();
        let file = other.file(&format!("three.{format}"), text);
        other.run(&["import", &file]).ok();
        assert_eq!(&other.run(&["export", "--format", "ndjson"]).ok(), &ndjson);
        assert_eq!(other.run(&["export"]).ok(), THREE);
    }
}

#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() {
    let server = Server::start();
    let file = server.file("g.csv", &generate(50_000));
    server.run(&["import", &file]).ok();
    for args in
        [&["export"][..], &["export", "--batched"], &["list"], &["generate", "--rows", "1000000"]]
    {
        let args = if args[0] == "generate" { args.to_vec() } else { at(args, &server.addr) };
        let mut process = Process::start(billstream(&args));
        let mut stdout = BufReader::new(process.child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let output = process.output();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}");
    }
}
