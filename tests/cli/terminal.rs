//! What a person sees: progress bars and tables, on a terminal that `script` of util-linux makes.

use std::process::Stdio;

use super::support::*;

/// Runs `line` in a shell on a terminal, `$billstream` being the binary, and gives all that comes there.
fn on_a_terminal(server: &Server, line: &str) -> String {
    let mut script = program("script");
    script.args(["-q", "-e", "-c", line, "/dev/null"]);
    script.env("billstream", env!("CARGO_BIN_EXE_billstream"));
    script.env("BILLSTREAM_ADDR", &server.addr).env("SHELL", "/bin/sh").env("TERM", "xterm");
    script.current_dir(server.dir.path());
    script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Process::start(script).output().ok()
}

/// A server with many invoices, and their csv.
fn many() -> (Server, String) {
    let server = Server::start();
    let csv = generate(50_000);
    server.run(&["import", &server.file("g.csv", &csv)]).ok();
    (server, csv)
}

#[test]
fn no_piece_of_a_bar_is_between_rows_on_the_terminal() {
    let (server, csv) = many();
    let rows = |count: usize| {
        csv.split_inclusive('\n').take(count).collect::<String>().replace('\n', "\r\n")
    };
    for args in ["export", "export --batched"] {
        let line = format!("$billstream {args}");
        assert_eq!(on_a_terminal(&server, &format!("{line} | head -n 100")), rows(100));
        assert!(on_a_terminal(&server, &format!("{line} | cat")) == rows(50_001), "{args}");
        assert!(on_a_terminal(&server, &line) == rows(50_001), "{args}");
    }
    let events: String = (0..500).map(|i| event_row(i, "nobody")).collect();
    server.file("events.csv", &format!("{EVENTS}{events}"));
    let shown = on_a_terminal(&server, "$billstream reconcile events.csv | cat");
    let counts = "500 events: 500 UNKNOWN_INVOICE\r\n";
    let acks = shown.replace(counts, "");
    assert_eq!((shown.len() - acks.len(), acks.lines().count()), (counts.len(), 501), "{shown:?}");
    assert!(!acks.contains(['\u{1b}', '/']), "{acks:?}");
}

#[test]
fn a_bar_is_shown_beside_a_file_and_is_gone_at_the_end() {
    let (server, _) = many();
    let shown = on_a_terminal(&server, "$billstream export > all.csv");
    assert!(shown.contains("/50,000 rows "), "{shown:?}");
    // Its line is emptied.
    assert!(shown.ends_with("\u{1b}[2K") || shown.ends_with("\u{1b}[2K\r"), "{shown:?}");
    for rate in shown.split("rows ").skip(1).filter_map(|shown| shown.split_once("/s")) {
        assert!(rate.0.chars().all(|c| c.is_ascii_digit() || c == ','), "{shown:?}");
    }
}

#[test]
fn a_table_is_as_wide_on_every_page_however_long_a_memo_is() {
    let server = Server::start();
    let row = |i: usize, memo: &str| {
        format!("inv-{i:04},cust-{},{i},USD,2024-05-01T00:00:00Z,{memo}\n", i % 7)
    };
    let rows: String =
        (1..2000).map(|i| row(i, if i % 97 == 0 { "東京 to Zürich" } else { "" })).collect();
    server
        .run(&[
            "import",
            &server.file("m.csv", &format!("{HEADER}{rows}{}", row(2000, &"m".repeat(1000)))),
        ])
        .ok();
    let table = server.run(&["list"]).ok();
    let widest = table.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest < 160, "{widest}");
    // Wherever pages end.
    for page_size in ["7", "50"] {
        assert!(server.run(&["list", "--page-size", page_size]).ok() == table, "{page_size}");
    }
    assert!(server.run(&["export", "--format", "table"]).ok() == table);
    let memo = table.lines().next().unwrap().find("memo").unwrap();
    let rows = table.lines().skip(1);
    let last = rows.last().unwrap();
    assert!(last[memo..].starts_with("mmmmmmmmmmmmm…  OPEN "), "{last}");
}
