//! Rows of small inputs, whole and byte by byte.

use std::io;

use super::*;

const COLUMNS: &[Column] = &[
    Column::new("id", Need::Optional),
    Column::new("cents", Need::Required),
    Column::new("at", Need::Required),
    Column::new("status", Need::Ignored),
];

#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Options {
    #[command(flatten)]
    layout: LayoutArgs,
}

fn layout(options: &[&str]) -> Layout {
    use clap::Parser;
    Options::try_parse_from(options).unwrap().layout.layout(COLUMNS).unwrap()
}

type Found = std::result::Result<Vec<(String, i64, u64)>, String>;

/// The id, cents and line of each row, or the message of the failure.
fn read_with(options: &[&str], bytes: &[u8]) -> Found {
    let layout = layout(options);
    let found = read_from(&layout, bytes);
    assert_eq!(read_from(&layout, ByteByByte(bytes)), found, "{}", bytes.escape_ascii());
    found
}

fn read(text: &str) -> Found {
    read_with(&[], text.as_bytes())
}

fn read_from(layout: &Layout, input: impl Read) -> Found {
    let row = |rows: &Rows<_>| {
        let (at, id, cents) =
            (rows.time("at"), rows.name("id", 8), rows.cents("cents", Some("EUR")));
        at.and(Some((id?.to_owned(), cents?, rows.line())))
    };
    let read = || {
        let mut rows = Rows::new("in", layout, input)?;
        let mut all = Vec::new();
        loop {
            match rows.next(row)? {
                Next::Row(row) => all.push(row),
                Next::Bad => {}
                Next::End => return rows.finish().map(|()| all),
            }
        }
    };
    read().map_err(message)
}

fn message(failure: Failure) -> String {
    match failure {
        Failure::Usage(message) => message,
        other => panic!("{other:?}"),
    }
}

/// What a pipe may give.
struct ByteByByte<'a>(&'a [u8]);

impl Read for ByteByByte<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut buffer[..1])
    }
}

fn row(id: &str, cents: i64, line: u64) -> (String, i64, u64) {
    (id.to_owned(), cents, line)
}

#[test]
fn csv_columns_come_in_any_order_and_lines_are_counted_as_an_editor_does() {
    let text = "at,cents,id\r\n\r\n2020-01-01T00:00:00Z,1,\"a\nb\"\r\n\r\n\
                2020-01-01T00:00:00Z,2,c\r\n2020-01-01T00:00:00Z,3,d";
    let expected = vec![row("a\nb", 1, 3), row("c", 2, 6), row("d", 3, 7)];
    assert_eq!(read(text).as_ref(), Ok(&expected));
    assert_eq!(read(&text.replace("\r\n", "\n")).as_ref(), Ok(&expected));
    assert_eq!(read(&format!("\u{feff}{text}\r\n")).as_ref(), Ok(&expected));
    let later = expected.into_iter().map(|(id, cents, line)| (id, cents, line + 2)).collect();
    assert_eq!(read(&format!("\r\n\n{text}")), Ok(later));
}

#[test]
fn rows_of_nothing_but_delimiters_are_no_rows() {
    let text = ",,\nat,cents,id\n,,\n2020-01-01T00:00:00Z,1,a\n\"\",,\"\"\n,\n,,";
    assert_eq!(read(text), Ok(vec![row("a", 1, 4)]));
}

#[test]
fn ndjson_is_seen_by_its_brace() {
    let text = "\u{feff}\n \n {\"cents\":1,\"at\":\"2020-01-01T00:00:00Z\"}";
    assert_eq!(read(text), Ok(vec![row("", 1, 3)]));
    let text = "{\"cents\":1,\"at\":\"2020-01-01T00:00:00Z\",\"id\":\"\\u0061\"}\n\n\
                {\"at\":\"2020-01-01T00:00:00Z\",\"cents\":\"2\",\"status\":\"PAID\",\"id\":null}";
    assert_eq!(read(text), Ok(vec![row("a", 1, 1), row("", 2, 3)]));
}

#[test]
fn what_is_wrong_is_named() {
    let at = "2020-01-01T00:00:00Z";
    for (text, expected) in [
        ("", "in:1: the input is empty; expected a csv header, or ndjson"),
        (
            "id,cents\n",
            "in:1: no column at; expected the csv header [id],cents,at\n  \
             --set at=VALUE gives all rows one value of a column that the file lacks",
        ),
        (
            "cents,at,curency,cents\n",
            "in:1: unknown column \"curency\"; column cents twice; expected the csv header [id],cents,at\n  \
             --ignore-columns curency leaves columns out",
        ),
        (&format!("cents,at\n1,{at}\n2\n"), "in:3: 1 fields; expected 2, as in the header"),
        (
            &format!("cents,at\n1,{at}\n2"),
            "in:3: 1 fields; expected 2, as in the header: is the file cut?",
        ),
        (
            &format!("at,cents,id\n{at},1,a\n{at},1,\"b\n\n"),
            "in:3: a quoted field without its end: is the file cut?",
        ),
        (
            "cents,at\n1,2020-02-30T00:00:00Z\n",
            "in:2: column at: \"2020-02-30T00:00:00Z\": expected an RFC 3339 time such as 1997-01-01T00:00:00Z (there is no such day or time of day)",
        ),
        (
            &format!("cents,at,id\n1,{at},123456789\n"),
            "in:2: column id: \"123456789\": expected at most 8 bytes",
        ),
        (
            &format!("{{\"at\":\"{at}\"}}"),
            "in:1: no column cents in this JSON object\n  \
             --set cents=VALUE gives all rows one value of a column that the file lacks",
        ),
        (
            "{\"at\":[1],\"cents\":true}",
            "in:1: column at: \"[1]\": expected a string or a number\n\
             error: in:1: column cents: \"true\": expected a string or a number",
        ),
        (
            "{\"ad\":1}",
            "in:1: unknown column \"ad\"; expected id, cents, at, status\n  \
             --map COLUMN=ad says which column it is\n  --ignore-columns ad leaves it out",
        ),
        ("{\"at\":\"20", "in:1: JSON without its end (EOF while parsing a string): is the file cut?"),
        ("{\"at\" 1}", "in:1: expected a JSON object on one line: expected `:` at its column 7"),
    ] {
        assert_eq!(read(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn every_row_is_looked_at() {
    let text = "cents,at\n1,2020\n1\nx,2020-01-01T00:00:00Z\n\"1\"2,2020\nz,z\n";
    let wrong = read(text).unwrap_err();
    let lines: Vec<_> = wrong.lines().map(|line| line.trim_start_matches("error: ")).collect();
    let beginnings = [
        "in:2: column at: \"2020\": expected",
        "in:3: 1 fields; expected 2, as in the header",
        "in:4: column cents: \"x\": expected a whole number of cents",
        "in:5: a quoted field goes on after its closing quote",
        "after the last of them nothing was checked",
    ];
    assert_eq!(lines.len(), beginnings.len(), "{wrong}");
    for (line, beginning) in lines.iter().zip(beginnings) {
        assert!(line.starts_with(beginning), "{line}");
    }
}

#[test]
fn a_quote_without_end_is_found_before_memory_is() {
    let text = format!("cents,at,id\n1,2,\"{}", "x\n".repeat(4 << 20));
    let expected = "in:2: a row of more than 1024 KiB: does a quoted field lack its end?";
    assert_eq!(read(&text), Err(expected.to_owned()));
}

#[test]
fn names_and_values_are_as_the_layout_says() {
    let at = "2020-01-01T00:00:00Z";
    let expected = Ok(vec![row("a", 7, 2)]);
    let csv = |header: &str, row: &str| format!("{header}\n{row}\n").into_bytes();
    for (options, input) in [
        (&["--map", "id= No,at=When"][..], csv(" No,cents,When", &format!("a,7,{at}"))),
        (&["--map", "id=No", "--map", "at=When"], csv("When,\"No\",cents", &format!("{at},a,7"))),
        (&["--set", "id=a"], csv("cents,at", &format!("7,{at}"))),
        (&["--set", "id=a", "--ignore-columns", "id,x"], csv("cents,at,id", &format!("7,{at},b"))),
        (&["--set", "cents=7", "--map", "id=cents"], csv("at,cents", &format!("{at},a"))),
        (&["--ignore-extra-columns"], csv("cents,x,at,id,x,", &format!("7,x,{at},a,y,z"))),
        (&["--delimiter", ";"], csv("cents;at;id", &format!("7;{at};a"))),
        (&["--delimiter", "tab"], csv("cents\tat\tid", &format!("7\t{at}\ta"))),
        (&["--delimiter", "\\t"], csv("\"cents\"\tat\tid", &format!("7\t{at}\ta"))),
        (
            &["--map", "cents=Amount", "--decimal", "."],
            csv("Amount,at,id", &format!("0.07,{at},a")),
        ),
        (
            &["--map", "id=no,cents=sum", "--ignore-columns", "x", "--decimal", "."],
            csv("", &format!("{{\"no\":\"a\",\"sum\":0.07,\"at\":\"{at}\",\"x\":{{}}}}")),
        ),
        (
            &["--set", "id=a", "--ignore-extra-columns"],
            csv("", &format!("{{\"cents\":7,\"at\":\"{at}\",\"more\":[1,2]}}")),
        ),
    ] {
        assert_eq!(read_with(options, &input), expected, "{options:?}");
    }
}

#[test]
fn what_the_layout_says_of_an_input_must_be_true() {
    for (options, text, expected) in [
        (&["--map", "id=No"][..], "id,cents,at\n", "in:1: unknown column \"id\"; no column No (id)"),
        (&["--map", "id=No"], "No,No,cents,at\n", "in:1: column No (id) twice"),
        (&["--set", "id=a"], "id,cents,at\n", "in:1: column \"id\" is in the file, and --set says what it is"),
        (
            &["--set", "id=a", "--ignore-extra-columns"],
            "{\"id\":1}\n",
            "in:1: column \"id\" is in the file, and --set says what it is",
        ),
        (&["--delimiter", ";"], "{\"id\":1}\n", "in:1: the input is ndjson, and --delimiter is of a csv"),
        (
            &["--decimal", ",", "--thousands", "."],
            "{\"cents\":1.234}\n",
            "in:1: column cents: \"1.234\": expected a string: the decimal mark of a JSON number is .",
        ),
        (
            &["--set", "cents=x"],
            "at\n2020-01-01T00:00:00Z\n2020-01-01T00:00:00Z\n",
            "--set cents: \"x\": expected a whole number of cents",
        ),
    ] {
        let wrong = read_with(options, text.as_bytes()).unwrap_err();
        assert!(wrong.starts_with(expected), "{options:?}: {wrong}");
        assert!(wrong.matches("--set cents:").count() < 2, "{wrong}");
    }
}

#[test]
fn the_option_that_helps_is_named() {
    for (text, hint) in [
        ("cents;at\n", "--delimiter ';' says what is between its columns"),
        ("cents\tat\n", "--delimiter tab says what is between its columns"),
        (
            "Id #,CENTS,Ort\n",
            "--map 'id=Id #,cents=CENTS,at=NAME' says which column of the file each is",
        ),
        ("Id #,CENTS,Ort\n", "--ignore-columns Ort leaves columns out"),
        ("cents\n", "--set at=VALUE gives all rows one value"),
    ] {
        let wrong = read(text).unwrap_err();
        assert!(wrong.contains(&format!("\n  {hint}")), "no {hint:?} in {wrong}");
    }
    let latin = read_with(&[], b"cents,at,id\n1,2020-01-01T00:00:00Z,\xfc\n").unwrap_err();
    assert!(latin.ends_with(&format!("expected UTF-8 text\n  {ENCODING_HINT}")), "{latin}");
    let header = read_with(&[], b"cents,at,S\xfcd\n").unwrap_err();
    assert!(header.ends_with(&format!("\n  {ENCODING_HINT}")), "{header}");
}
