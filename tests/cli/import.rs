//! `import`.

use std::fs;

use super::proxy::Proxy;
use super::support::*;

#[test]
fn the_real_purchases_come_out_as_they_went_in() {
    let Some(csv) = cdnow() else { return };
    let server = Server::start();
    let result = server.run(&["import", &csv, "--format", "ndjson", "--batch-id", "real"]).ok();
    let totals =
        "\"totals\":[{\"currency\":\"USD\",\"invoice_count\":69659,\"total_cents\":250031563,";
    assert!(result.starts_with("{\"created_count\":69659,\"first_sequence\":1,"), "{result}");
    assert!(result.contains(totals), "{result}");
    assert!(server.summary().contains(totals));
    let file = fs::read_to_string(&csv).unwrap();
    assert!(server.run(&["export"]).ok() == file, "export differs");
    assert!(server.run(&["export", "--batched"]).ok() == file, "export --batched differs");
    assert!(
        server.run(&["list", "--format", "csv", "--columns", COLUMNS]).ok() == file,
        "list differs"
    );
    let before = server.summary();
    let message = format!("{csv}:2: ALREADY_EXISTS");
    let again = server.run(&["import", &csv]);
    assert!(again.stderr.contains("\"cdnow-000001\" is taken"), "{}", again.stderr);
    again.fails(1, &message);
    assert_eq!(server.summary(), before);
}

#[test]
fn a_batch_id_creates_once() {
    let server = Server::start();
    let import = |input: &str| {
        let args = ["import", "-", "--batch-id", "b1", "--format", "csv"];
        run_with_stdin(&at(&args, &server.addr), input).ok()
    };
    let first = import(THREE);
    let header = "created_count,first_sequence,last_sequence,batch_id,already_applied,currency,\
                  invoice_count,total_cents,paid_cents,outstanding_cents\n";
    assert_eq!(
        first,
        format!("{header}3,1,3,b1,false,EUR,1,3000,0,3000\n3,1,3,b1,false,USD,2,3000,0,3000\n")
    );
    assert_eq!(import(THREE), first.replace("false", "true"));
    let only_header = run_with_stdin(&at(&["import", "-"], &server.addr), HEADER).ok();
    assert!(only_header.starts_with("created_count    0\n"), "{only_header}");
}

#[test]
fn a_bad_input_is_named_by_line_and_column_and_changes_nothing() {
    let server = Server::with_three();
    let before = server.summary();
    let row = |row: &str| format!("{HEADER}x,anna,1,USD,2020-01-01T00:00:00Z,\n{row}\n");
    let long = "m".repeat(1025);
    let huge = "m".repeat(5 << 20);
    for (name, text, code, message) in [
        ("empty", String::new(), 2, ":1: the input is empty; expected a csv header"),
        ("not_csv", "\u{7f}ELF\u{2}\0\0\n\0\0".to_owned(), 2, ":1: unknown column \"\\u{7f}ELF"),
        ("no_currency", HEADER.replace("currency,", ""), 2, ":1: no column currency; expected the csv header"),
        ("typo", HEADER.replace("memo", "meme"), 2, ":1: unknown column \"meme\""),
        ("twice", HEADER.replace("memo", "currency"), 2, ":1: column currency twice"),
        ("date", row("y,anna,1,USD,2020-02-30T00:00:00Z,"), 2,
            ":3: column issued_at: \"2020-02-30T00:00:00Z\": expected an RFC 3339 time"),
        ("day", row("y,anna,1,USD,2020-02-03,"), 2, ":3: column issued_at: \"2020-02-03\": expected"),
        ("float", row("y,anna,1.50,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column total_amount_cents: \"1.50\": expected a whole number of cents"),
        ("overflow", row("y,anna,9223372036854775808,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column total_amount_cents: \"9223372036854775808\": expected a whole number of cents"),
        ("currency", row("y,anna,1,XXQ,2020-01-01T00:00:00Z,"), 2,
            ":3: column currency: \"XXQ\": expected an ISO 4217 code"),
        ("lower", row("y,anna,1,usd,2020-01-01T00:00:00Z,"), 2, ":3: column currency: \"usd\""),
        ("nobody", row("y,,1,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column customer_id: \"\": expected 1 to 128 bytes"),
        ("memo", row(&format!("y,anna,1,USD,2020-01-01T00:00:00Z,{long}")), 2,
            ":3: column memo: \"mmmmmmmmmm"),
        ("huge", row(&format!("y,anna,1,USD,2020-01-01T00:00:00Z,{huge}")), 2,
            ":3: a row of more than 1024 KiB"),
        ("duplicate", row("x,anna,1,USD,2020-01-01T00:00:00Z,"), 2,
            ":3: column invoice_id: \"x\": expected an id that is not on line 2 already"),
        ("taken", row("b,anna,1,USD,2020-01-01T00:00:00Z,"), 1, ":3: ALREADY_EXISTS: "),
        ("cut", row("y,anna,1,US").trim_end().to_owned(), 2, ":3: 4 fields; expected 6, as in the header: is the file cut?"),
        ("cut_quote", row("y,anna,1,USD,2020-01-01T00:00:00Z,\"a memo").trim_end().to_owned(), 2,
            ":3: a quoted field without its end: is the file cut?"),
        ("long_row", row("y,anna,1,USD,2020-01-01T00:00:00Z,,"), 2, ":3: 7 fields; expected 6"),
        ("cut_json", "{\"customer_id\":\"anna\",\"total_amount_cents\":1,\"curr".to_owned(), 2,
            ":1: JSON without its end"),
        ("json_type", "{\"customer_id\":true}".to_owned(), 2,
            ":1: column customer_id: \"true\": expected a string or a number"),
        ("json_key", "{\"customer\":\"anna\"}".to_owned(), 2, ":1: unknown column \"customer\""),
    ] {
        let file = server.file(name, &text);
        server.run(&["import", &file]).fails(code, &format!("{file}{message}"));
        assert_eq!(server.summary(), before, "{name}");
    }
}

#[test]
fn a_file_without_its_last_newline_is_whole() {
    let server = Server::start();
    let file = server.file("three.csv", THREE.trim_end());
    server.run(&["import", &file]).ok();
    assert_eq!(server.run(&["export"]).ok(), THREE);
}

/// What a row costs when it waits on one thread for another to send it: 2 switches on 1f9818f.
#[test]
fn rows_are_sent_without_a_switch_between_threads_for_each() {
    const ROWS: u64 = 50_000;
    let server = Server::start();
    let file = server.file("g.csv", &generate(ROWS));
    // The gate holds up the end of the upload, when almost all rows are sent.
    let proxy = Proxy::start(&server, 3 << 20, u64::MAX);
    let import =
        Process::start(billstream(&at(&["import", &file, "--batch-id", "b"], &proxy.addr)));
    proxy.state.up.wait_until_shut();
    let switches = import.switches();
    assert!(switches < ROWS / 4, "{switches} switches for {ROWS} rows");
    println!("{switches} switches for {ROWS} rows");
    proxy.state.up.open();
    import.output().ok();
}
