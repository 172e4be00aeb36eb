//! Files as other programs write them. What is sound is read for what it says; what would be a guess is
//! refused with its line.

use super::support::*;

/// The cases that once went wrong, as they are kept beside this file.
macro_rules! case {
    ($name:literal) => {
        ($name, include_bytes!(concat!("cases/", $name)).as_slice())
    };
}

/// The import of `input`, by a name of its own, into an empty database.
fn import(name: &str, input: &[u8]) -> (String, Output, Server) {
    let server = Server::start();
    let path = server.path(name);
    std::fs::write(&path, input).unwrap();
    let output = server.run(&["import", &text_of(&path)]);
    (text_of(&path), output, server)
}

/// Asserts what is in the database after an import of `input`, in the columns that a file may have.
#[track_caller]
fn assert_created((name, input): (&str, &[u8]), rows: &str) -> Output {
    let (_, output, server) = import(name, input);
    assert_eq!(output.code, 0, "{name}: {output:?}");
    assert_eq!(server.run(&["export"]).ok(), format!("{HEADER}{rows}"), "{name}");
    output
}

/// Asserts that `input` is refused with a message that begins at a line of it, and nothing created.
#[track_caller]
fn assert_refused((name, input): (&str, &[u8]), line_and_message: &str) {
    let (path, output, server) = import(name, input);
    assert_eq!(output.code, 2, "{name}: {output:?}");
    let expected = format!("error: {path}:{line_and_message}");
    assert!(output.stderr.contains(&expected), "no {expected:?} in {output:?}");
    assert_eq!(server.run(&["export"]).ok(), HEADER, "{name}");
}

const A: &str = "a,c,100,USD,2024-05-01T00:00:00Z,m\n";

#[test]
fn the_cases_that_once_went_wrong() {
    assert_created(case!("mixed-eol-id.csv"), "mix-4,c,100,USD,2024-05-01T00:00:00Z,\n");
    assert_created(
        case!("inch-no-final-newline.csv"),
        "inch-1,c,100,USD,2024-05-01T00:00:00Z,\"5\"\" pipe\"\n\
         inch-2,c,100,USD,2024-05-01T00:00:00Z,hose\n",
    );
    assert_created(case!("bom.ndjson"), "nb-1,c,100,USD,2024-05-01T00:00:00Z,m\n");
    let paid = assert_created(case!("paid.ndjson"), "paid-1,c,100,USD,2024-05-01T00:00:00Z,\n");
    let note = "ignoring status, paid_cents, sequence: all invoices are created anew";
    assert!(paid.stderr.contains(note), "{paid:?}");
    assert_refused(case!("bare-quotes.csv"), "2: a quoted field goes on after its closing quote");
    let empty =
        assert_created(case!("excel-empty-rows.csv"), "ee-1,c,100,USD,2024-05-01T00:00:00Z,memo\n");
    assert!(empty.stderr.contains("skipped 2 empty rows"), "{empty:?}");
    assert_refused(
        case!("array.json"),
        "1: the input begins with [: one JSON object a line is expected",
    );
    assert_refused(
        case!("time-offset-25.csv"),
        "2: column issued_at: \"2024-05-01T10:00:00+25:00\": expected an RFC 3339 time such as \
         1997-01-01T00:00:00Z (its offset ends at 23:59)",
    );
}

#[test]
fn a_payment_after_a_line_that_ends_otherwise_finds_its_invoice() {
    let server = Server::start();
    let invoice = server.file("late.csv", include_str!("cases/late-invoice.csv"));
    server.run(&["import", &invoice]).ok();
    let payment = include_str!("cases/pay-mixed-eol-id.csv");
    let acks = run_with_stdin(&at(&["reconcile", "-"], &server.addr), payment).ok();
    assert!(acks.ends_with("\nev-9,PARTIAL,PARTIALLY_PAID,99,false,\n"), "{acks}");
}

#[test]
fn lines_end_in_either_way_in_any_mixture() {
    let lines = [
        HEADER.trim_end(),
        A.trim_end(),
        "b,c,100,USD,2024-05-01T00:00:00Z,\"n\"",
        "d,c,1,USD,2024-05-01T00:00:00Z,",
    ];
    let rows = format!("{A}b,c,100,USD,2024-05-01T00:00:00Z,n\nd,c,1,USD,2024-05-01T00:00:00Z,\n");
    let server = Server::start();
    for ends in 0..24 {
        let end = |i: usize| if ends >> i & 1 == 0 { "\n" } else { "\r\n" };
        // The last line also without one.
        let last = if ends < 16 { end(3) } else { "" };
        let text = [lines[0], end(0), lines[1], end(1), lines[2], end(2), lines[3], last].concat();
        let text = text
            .replace("\na,", &format!("\na{ends},"))
            .replace("\nb,", &format!("\nb{ends},"))
            .replace("\nd,", &format!("\nd{ends},"));
        let before = server.run(&["export"]).ok();
        run_with_stdin(&at(&["import", "-"], &server.addr), &text).ok();
        let after = server.run(&["export"]).ok();
        let new = after[before.len()..].replace(&format!("{ends},c,"), ",c,");
        assert_eq!(new, rows, "{text:?}");
    }
}

#[test]
fn what_a_file_begins_with_is_no_matter() {
    let json = br#"{"invoice_id":"a","customer_id":"c","total_amount_cents":100,"currency":"USD","issued_at":"2024-05-01T00:00:00Z","memo":"m"}"#;
    let csv = format!("{HEADER}{A}");
    for start in ["", "\u{feff}", "\n", "\r\n", "\n\n \r\n", "\u{feff}\n\r\n"] {
        assert_created(("a.csv", format!("{start}{csv}").as_bytes()), A);
        for (start, end) in [(start, ""), (start, "\n"), (start, "\r\n\n")] {
            assert_created(("a.ndjson", &[start.as_bytes(), json, end.as_bytes()].concat()), A);
            assert_created(
                ("a.txt", &[start.as_bytes(), b" \t", json, end.as_bytes()].concat()),
                A,
            );
        }
    }
}

#[test]
fn other_encodings_are_named() {
    let csv = format!("{HEADER}{A}");
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| csv.encode_utf16().flat_map(bytes).collect::<Vec<_>>();
    let (little, big) = (utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes));
    let with = |mark: &[u8], text: &[u8]| [mark, text].concat();
    for (text, message) in [
        (with(b"\xFF\xFE", &little), "1: the text is UTF-16 (little-endian); expected UTF-8"),
        (little, "1: the text is UTF-16 (little-endian); expected UTF-8"),
        (with(b"\xFE\xFF", &big), "1: the text is UTF-16 (big-endian); expected UTF-8"),
        (big, "1: the text is UTF-16 (big-endian); expected UTF-8"),
        (b"\xFF\xFE\0\0i\0\0\0".to_vec(), "1: the text is UTF-32 (little-endian); expected UTF-8"),
        (
            csv.replace("m\n", "Z\u{fc}rich\n").chars().map(|c| c as u8).collect(),
            "2: column memo: \"Z\u{fffd}rich\": expected UTF-8 text",
        ),
    ] {
        assert_refused(("a.csv", &text), message);
    }
}

#[test]
fn what_would_be_a_guess_is_refused_with_its_line() {
    let csv = |rows: &str| format!("{HEADER}{A}{rows}");
    let memo = |memo: &str| csv(&format!("b,c,1,USD,2024-05-01T00:00:00Z,{memo}"));
    let object = r#"{"customer_id":"c","total_amount_cents":1,"currency":"USD","issued_at":"2024-05-01T00:00:00Z"}"#;
    for (name, text, message) in [
        ("quote", memo("\"5\" pipe\"\n"), "3: a quoted field goes on after its closing quote"),
        ("backslash", memo("\"5\\\" pipe\"\n"), "3: a quoted field goes on after its closing quote"),
        ("after", memo("\"5\" \n"), "3: a quoted field goes on after its closing quote"),
        ("later", csv("\"b\",c,1,USD,2024-05-01T00:00:00Z,\"a\nb\"c\n"), "3: a quoted field goes on"),
        ("open", memo("\"5 pipe\nd,c,1,USD,2024-05-01T00:00:00Z,\n"), "3: a quoted field without its end"),
        ("carriage", memo("5\rpipe\n"), "3: a carriage return without a line feed"),
        ("twice", memo("5\r\r\n"), "3: a carriage return without a line feed"),
        ("mac", csv("").replace('\n', "\r"), "1: a carriage return without a line feed"),
        ("nul", memo("a\0b\n"), "3: column memo: \"a\\0b\": expected text without NUL"),
        ("blank", "\r\n \n".to_owned(), "1: the input is empty"),
        ("nothing", String::new(), "1: the input is empty"),
        ("bom", "\u{feff}".to_owned(), "1: the input is empty"),
        ("indent", format!(" {HEADER}"), "1: unknown column \" invoice_id\""),
        ("pretty", object.replace(",\"", ",\n  \""), "1: one JSON object a line is expected"),
        ("pretty_more", format!("{object}\n{}", object.replace('{', "{\n")), "2: one JSON object a line is expected"),
        ("cut", object[..50].to_owned(), "1: JSON without its end"),
        ("array", format!("\n[{object}]"), "2: the input begins with [: one JSON object a line is expected"),
        ("array_later", format!("{object}\n[{object}]"), "2: invalid type: sequence, expected a JSON object"),
        ("two", format!("{object} {object}"), "1: expected a JSON object on one line: trailing characters"),
        ("comma", format!("{object},\n{object}"), "1: expected a JSON object on one line: trailing characters"),
        ("twice_json", object.replace('}', ",\"currency\":\"EUR\"}"), "1: column currency twice"),
        ("real", object.replace(":1,", ":1.0,"), "1: column total_amount_cents: \"1.0\": expected a whole number of cents"),
        ("leap", csv("b,c,1,USD,2016-12-31T23:59:60Z,\n"), "3: column issued_at: \"2016-12-31T23:59:60Z\": expected an RFC 3339 time such as 1997-01-01T00:00:00Z (a leap second"),
        ("year_0", csv("b,c,1,USD,0000-01-01T00:00:00Z,\n"), "3: column issued_at: \"0000-01-01T00:00:00Z\": expected an RFC 3339"),
        ("basic", csv("b,c,1,USD,20240501T000000Z,\n"), "3: column issued_at: \"20240501T000000Z\": expected an RFC 3339"),
    ] {
        assert_refused((name, text.as_bytes()), message);
    }
}

#[test]
fn an_empty_file_may_be_ndjson_by_its_name() {
    for name in ["a.ndjson", "a.jsonl"] {
        assert_created((name, b""), "");
        assert_created((name, b"\xEF\xBB\xBF\r\n\n"), "");
    }
}

#[test]
fn each_ignored_member_is_noted_once() {
    let with = |more: &str| {
        format!("{{\"customer_id\":\"c\",\"total_amount_cents\":1,\"currency\":\"USD\",\"issued_at\":\"2024-05-01T00:00:00Z\"{more}}}\n")
    };
    let text = [
        with(""),
        with(",\"status\":\"PAID\""),
        with(",\"status\":\"OPEN\""),
        with(",\"sequence\":1,\"status\":\"\""),
    ]
    .concat();
    let (path, output, _server) = import("a.ndjson", text.as_bytes());
    let notes: Vec<_> = output.stderr.lines().filter(|line| line.contains("ignoring")).collect();
    let note = |columns| format!("{path}: ignoring {columns}: all invoices are created anew");
    assert_eq!(notes, [note("status"), note("sequence")], "{output:?}");
}

#[test]
fn an_input_that_cannot_be_read_is_no_wrong_input() {
    let server = Server::start();
    // Reading the memory of a process where it has none is an error of the disk, as it were.
    for command in ["import", "reconcile"] {
        server.run(&[command, "/proc/self/mem"]).fails(1, "/proc/self/mem: ");
    }
}
