//! What `list` and `export` write for another program: columns, notations, safe cells, mapping files, files.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::thread;
use std::time::{Duration, Instant};

use super::support::*;

/// Of several currencies and signs.
const BOOKS: &str = "\
invoice_id,customer_id,total_amount_cents,currency,issued_at,memo
a,anna,123456789,EUR,2010-12-31T23:30:00Z,
b,bert,-1250,EUR,2011-06-30T22:00:00.5Z,back
c,anna,1250,JPY,2011-07-01T00:00:00Z,
d,anna,-5,KWD,2011-07-01T00:00:00Z,
";

fn books() -> Server {
    let server = Server::start();
    let file = server.file("books.csv", BOOKS);
    server.run(&["import", &file]).ok();
    server
}

#[test]
fn columns_are_chosen_and_named() {
    let server = Server::with_three();
    let args = ["--columns", "memo,invoice_id", "--map", "invoice_id=Invoice No,memo=\"Text\""];
    for command in ["export", "list"] {
        let csv = server.run(&[&[command, "--format", "csv"], &args[..]].concat()).ok();
        assert_eq!(
            csv,
            "\"\"\"Text\"\"\",Invoice No\n,a\n\"two, with \"\"quotes\"\"\",b\nZürich,c\n"
        );
        let ndjson = server.run(&[&[command, "--format", "ndjson"], &args[..]].concat()).ok();
        assert!(
            ndjson.ends_with("{\"\\\"Text\\\"\":\"Zürich\",\"Invoice No\":\"c\"}\n"),
            "{ndjson}"
        );
        let table = server.run(&[&[command, "--format", "table"], &args[..]].concat()).ok();
        assert!(table.starts_with("\"Text\"              Invoice No\n"), "{table}");
    }
    for (args, message) in [
        (["--columns", "memo,currenzy"], "unknown column \"currenzy\": did you mean currency?"),
        (["--columns", "memo,"], "unknown column \"\""),
        (["--columns", "memo,memo"], "--columns: memo twice"),
        (["--map", "memo=currency"], "--columns: currency twice"),
        (["--map", "memo=a,memo=b"], "--map says twice what memo is"),
        (["--map", "mem=a"], "unknown column \"mem\": did you mean memo?"),
    ] {
        server.run(&[&["export"], &args[..]].concat()).fails(2, message);
    }
}

#[test]
fn amounts_and_times_are_written_as_asked() {
    let server = books();
    let german = [
        "--delimiter",
        ";",
        "--decimal",
        ",",
        "--thousands",
        ".",
        "--time-format",
        "%d.%m.%Y %H:%M",
        "--timezone",
        "Europe/Berlin",
    ];
    let csv = server.run(&[&["export"], &german[..]].concat()).ok();
    let expected = "\
invoice_id;customer_id;total_amount_cents;currency;issued_at;memo
a;anna;1.234.567,89;EUR;01.01.2011 00:30;
b;bert;-12,50;EUR;01.07.2011 00:00;back
c;anna;1.250;JPY;01.07.2011 02:00;
d;anna;-0,005;KWD;01.07.2011 02:00;
";
    assert_eq!(csv, expected);
    let columns = ["--columns", "total_amount_cents,paid_cents,issued_at", "--format", "ndjson"];
    let ndjson = server.run(&[&["export", "--decimal", "."], &columns[..]].concat()).ok();
    let second = ndjson.lines().nth(1).unwrap();
    assert_eq!(
        second,
        "{\"total_amount_cents\":\"-12.50\",\"paid_cents\":\"0.00\",\"issued_at\":\"2011-06-30T22:00:00.5Z\"}"
    );
    let table = server.run(&["list", "--decimal", ".", "--columns", "total_amount_cents"]).ok();
    assert_eq!(table, "total_amount_cents\n        1234567.89\n            -12.50\n              1250\n            -0.005\n");
}

#[test]
fn events_have_the_same_options() {
    let server = books();
    let events = format!("{EVENTS}e1,a,100,EUR,2011-01-01T00:00:00Z,\"=1\"\n");
    let file = server.file("events.csv", &events);
    server.run(&["reconcile", &file]).ok();
    let columns = "reference,event_id,amount_cents,outstanding_cents,received_at";
    let args = [
        "export",
        "--events",
        "--columns",
        columns,
        "--map",
        "event_id=No",
        "--decimal",
        ".",
        "--time-format",
        "%Y-%m-%d",
        "--safe-cells",
    ];
    let expected = "\"reference\",\"No\",\"amount_cents\",\"outstanding_cents\",\"received_at\"\n\
                    \"'=1\",\"e1\",1.00,1234566.89,\"2011-01-01\"\n";
    assert_eq!(server.run(&args).ok(), expected);
    server.run(&["export", "--events", "--columns", "memo"]).fails(2, "unknown column \"memo\"");
}

#[test]
fn no_text_is_a_formula_when_cells_are_to_be_safe() {
    let server = Server::start();
    let memos = ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "1=1", "'=1", " =1", ""];
    let rows = memos.iter().enumerate();
    let rows: String = rows
        .map(|(i, memo)| format!("-{i},c,-1{i},USD,2020-01-01T00:00:00Z,\"{memo}\"\n"))
        .collect();
    let file = server.file("in.csv", &format!("{HEADER}{rows}"));
    server.run(&["import", &file]).ok();
    let columns = ["--columns", "memo,invoice_id,total_amount_cents"];
    let safe = server.run(&[&["export", "--safe-cells"], &columns[..]].concat()).ok();
    let shown = |(i, memo): (usize, &&str)| {
        let mark = if memo.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { "'" } else { "" };
        format!("\"{mark}{memo}\",\"'-{i}\",-1{i}\n")
    };
    let expected: String = memos.iter().enumerate().map(shown).collect();
    assert_eq!(safe, format!("\"memo\",\"invoice_id\",\"total_amount_cents\"\n{expected}"));
    let plain = server.run(&[&["export"], &columns[..]].concat()).ok();
    assert!(plain.starts_with("memo,invoice_id,total_amount_cents\n=1+1,-0,-10\n"), "{plain}");
}

#[test]
fn what_a_mapping_file_reads_is_written_with_it() {
    let mapping = "delimiter = ';'\ndecimal = ','\nthousands = '.'\ntimezone = 'Europe/London'\n\
                   time_format = '%d.%m.%Y %H:%M:%S%.f'\n\
                   [map]\ninvoice_id = 'No'\nissued_at = 'Date, time'\n[set]\ncurrency = 'EUR'\n";
    let server = Server::start();
    let mapping = server.file("shop.toml", mapping);
    let file = "No;customer_id;total_amount_cents;Date, time;memo\n\
                a;anna;1.234.567,89;31.12.2010 23:30:00;\n\
                b;bert;-12,50;30.06.2011 23:00:00.5;back\n";
    let path = server.file("in.csv", file);
    server.run(&["import", &path, "--mapping", &mapping]).ok();
    assert_eq!(server.run(&["export", "--mapping", &mapping]).ok(), file);
    // What is given beside it wins.
    let tab = server.run(&["export", "--mapping", &mapping, "--delimiter", "tab"]).ok();
    assert!(tab.starts_with("No\tcustomer_id\t"), "{tab}");

    let other = server.file("other.csv", &format!("{HEADER}c,c,1,USD,2020-01-01T00:00:00Z,\n"));
    server.run(&["import", &other]).ok();
    let refused = server.run(&["export", "--mapping", &mapping]);
    assert!(refused.stdout.ends_with(";back\n"), "{refused:?}");
    refused.fails(1, "row \"c\": \"USD\", where the mapping sets \"EUR\" for each row");
    let encoded = server.file("encoded.toml", "encoding = 'windows-1252'\n");
    server.run(&["export", "--mapping", &encoded]).fails(2, "export writes UTF-8");
}

/// The names in the server's directory that begin with `out`.
fn written(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.dir.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("out")).collect()
}

#[test]
fn a_file_has_its_name_when_it_is_whole() {
    let server = books();
    let out = text_of(&server.path("out.csv"));
    server.run(&["export", "-o", &out]).ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), BOOKS);
    // Through a link, to the file.
    let link = server.path("link.csv");
    std::os::unix::fs::symlink(&out, &link).unwrap();
    let wrong = server.file("eur.toml", "[set]\ncurrency = 'EUR'\n");
    let failing = ["export", "--mapping", &wrong, "-o", &text_of(&link)];
    let refused = server.run(&failing);
    assert_eq!(refused.stdout, "");
    refused.fails(1, "where the mapping sets");
    assert_eq!(fs::read_to_string(&out).unwrap(), BOOKS);
    server.run(&["list", "--limit", "1", "--format", "ndjson", "-o", &text_of(&link)]).ok();
    assert!(fs::read_to_string(&out).unwrap().starts_with("{\"invoice_id\":\"a\","));
    assert!(link.is_symlink());
    assert_eq!(written(&server), ["out.csv"]);

    server.run(&["export", "-o", "/dev/null"]).fails(1, "/dev/null: is no regular file");
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    server.run(&["export", "-o", "/nowhere/out.csv"]).fails(1, "/nowhere/out.csv: No such file");
}

#[test]
fn an_export_that_is_ended_leaves_no_file_of_that_name() {
    let server = books();
    let out = text_of(&server.path("out.csv"));
    server.process.signal("STOP");
    for (signal, code, left) in [("INT", -2, 0), ("KILL", -9, 1)] {
        let mut export = Process::start(billstream(&at(&["export", "-o", &out], &server.addr)));
        let start = Instant::now();
        while written(&server).is_empty() {
            assert!(start.elapsed() < DEADLINE, "it does not begin");
            thread::sleep(Duration::from_millis(2));
        }
        export.signal(signal);
        assert_eq!(export.wait(), code);
        let names = written(&server);
        assert_eq!(names.len(), left, "{signal}: {names:?}");
        assert!(names.iter().all(|name| name.starts_with("out.csv-partial-")), "{names:?}");
        assert!(signal == "KILL" || export.stderr().contains("interrupted: no file is written"));
    }
    server.process.signal("CONT");
}

#[test]
fn options_that_mean_nothing_in_a_format_are_refused() {
    for (args, message) in [
        (&["--safe-cells", "--format", "ndjson"][..], "--safe-cells is about a csv"),
        (&["--delimiter", ";", "--format", "table"], "--delimiter is about a csv"),
        (&["-o", "a.parquet"], "a file named .parquet: --format parquet writes one"),
        (&["--format", "parquet", "--decimal", "."], "a parquet has amounts and times as numbers"),
        (
            &["--format", "parquet", "--timezone", "UTC"],
            "a parquet has amounts and times as numbers",
        ),
        (&["--thousands", "."], "--decimal"),
        (&["--mapping", "absent.toml"], "absent.toml: No such file"),
    ] {
        for command in ["export", "list"] {
            run(&[&[command], args].concat()).fails(2, message);
        }
    }
    run(&["summary", "--format", "parquet"]).fails(2, "invalid value 'parquet'");
}
