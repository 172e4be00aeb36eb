//! Rows of an input, csv or ndjson, with messages that name the line, the column, the value and
//! what was expected.

use std::io::{self, Read};

use protobuf::well_known_types::timestamp::Timestamp;

use super::beginning::{self, Kind, Rest};
use super::csv_rows::CsvRows;
use super::failure::{Failure, Result};
use super::ndjson_rows::NdjsonRows;
use super::values;

/// A column that an input may have.
pub struct Column {
    pub name: &'static str,
    pub need: Need,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Required,
    /// Empty when it is not there.
    Optional,
    /// May be there, and means nothing here.
    Ignored,
}

impl Column {
    pub const fn new(name: &'static str, need: Need) -> Column {
        Column { name, need }
    }
}

/// The longest row in bytes. A longer one is most likely a quote without its end.
pub const MAX_ROW_BYTES: u64 = 1 << 20;

/// Why there is no next row.
pub enum Wrong {
    /// What is wrong with the input at the line at hand.
    Input(String),
    /// It cannot be read, which is no fault of what it says.
    Io(io::Error),
}

impl Wrong {
    pub fn input(message: &str) -> Wrong {
        Wrong::Input(message.to_owned())
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        Wrong::Io(error)
    }
}

/// Reads rows one after the other; the columns of the row at hand are asked for by name.
pub struct Rows<R: Read> {
    name: String,
    columns: &'static [Column],
    source: Source<R>,
    /// The line on which the row at hand begins, counted from 1.
    line: u64,
}

enum Source<R: Read> {
    Csv(Box<CsvRows<Rest<R>>>),
    Ndjson(NdjsonRows<Rest<R>>),
    /// An input without a row that may be ndjson.
    Empty,
}

impl<R: Read> Rows<R> {
    /// Reads `input`, which messages call `name`. What begins with `{` is ndjson.
    pub fn new(name: &str, columns: &'static [Column], input: R) -> Result<Rows<R>> {
        let mut rows = Rows { name: name.to_owned(), columns, source: Source::Empty, line: 1 };
        match rows.open(input) {
            Ok(source) => rows.source = source,
            Err(wrong) => return Err(rows.failure(wrong)),
        }
        Ok(rows)
    }

    fn open(&mut self, input: R) -> std::result::Result<Source<R>, Wrong> {
        let (kind, input) = beginning::open(input, &mut self.line)?;
        Ok(match kind {
            Kind::Csv => Source::Csv(Box::new(CsvRows::new(input, self.columns, &mut self.line)?)),
            Kind::Ndjson => Source::Ndjson(NdjsonRows::new(input, self.columns, self.line)),
            Kind::Empty if self.name.ends_with(".ndjson") || self.name.ends_with(".jsonl") => {
                Source::Empty
            }
            Kind::Empty => {
                self.line = 1;
                let message = "the input is empty; expected a csv header, or ndjson";
                return Err(Wrong::input(message));
            }
        })
    }

    /// Goes to the next row; false when there is none.
    pub fn advance(&mut self) -> Result<bool> {
        let advanced = match &mut self.source {
            Source::Csv(csv) => csv.advance(&mut self.line),
            Source::Ndjson(ndjson) => ndjson.advance(&mut self.line),
            Source::Empty => Ok(false),
        };
        advanced.map_err(|wrong| self.failure(wrong))
    }

    /// The line of the row at hand.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The names of the ignored columns that the row at hand has.
    pub fn ignored(&self) -> impl Iterator<Item = &'static str> + '_ {
        let has = |i: usize| match &self.source {
            Source::Csv(csv) => csv.has(i),
            Source::Ndjson(ndjson) => ndjson.has(i),
            Source::Empty => false,
        };
        let columns = self.columns.iter().enumerate();
        let ignored = columns.filter(move |(i, column)| column.need == Need::Ignored && has(*i));
        ignored.map(|(_, column)| column.name)
    }

    /// A column of the row at hand as it is; empty when it is absent.
    pub fn text(&self, column: &'static str) -> Result<&str> {
        let i = self.columns.iter().position(|known| known.name == column);
        let i = i.expect("a column of this input");
        let bytes = match &self.source {
            Source::Csv(csv) => csv.value(i),
            Source::Ndjson(ndjson) => ndjson.value(i),
            Source::Empty => b"",
        };
        std::str::from_utf8(bytes)
            .map_err(|_| self.wrong(column, &String::from_utf8_lossy(bytes), "UTF-8 text"))
    }

    /// A column that holds a name of at most `max_bytes`.
    pub fn name(&self, column: &'static str, max_bytes: usize) -> Result<&str> {
        let text = self.text(column)?;
        if text.len() > max_bytes {
            return Err(self.wrong(column, text, &format!("at most {max_bytes} bytes")));
        }
        if text.contains('\0') {
            return Err(self.wrong(column, text, "text without NUL"));
        }
        Ok(text)
    }

    /// As [`Rows::name`], and not empty.
    pub fn required_name(&self, column: &'static str, max_bytes: usize) -> Result<&str> {
        match self.name(column, max_bytes)? {
            "" => Err(self.wrong(column, "", &format!("1 to {max_bytes} bytes"))),
            text => Ok(text),
        }
    }

    /// A column that holds a number of cents.
    pub fn cents(&self, column: &'static str) -> Result<i64> {
        let text = self.text(column)?;
        text.parse().map_err(|_| self.wrong(column, text, "a whole number of cents"))
    }

    /// A column that holds a time.
    pub fn time(&self, column: &'static str) -> Result<Timestamp> {
        let text = self.text(column)?;
        values::time(text).map_err(|expected| self.wrong(column, text, &expected))
    }

    /// `FILE:LINE: column NAME: "VALUE": expected ...`
    pub fn wrong(&self, column: &str, value: &str, expected: &str) -> Failure {
        self.bad(&format!("column {column}: {}: expected {expected}", values::quoted(value)))
    }

    fn failure(&self, wrong: Wrong) -> Failure {
        match wrong {
            Wrong::Input(message) => self.bad(&message),
            Wrong::Io(error) => Failure::io(&self.name, error),
        }
    }

    /// `FILE:LINE: ...`
    pub fn bad(&self, message: &str) -> Failure {
        Failure::Usage(format!("{}:{}: {message}", self.name, self.line))
    }
}

/// Of a row past [`MAX_ROW_BYTES`].
pub fn too_long() -> Wrong {
    Wrong::Input(format!(
        "a row of more than {} KiB: does a quoted field lack its end?",
        MAX_ROW_BYTES >> 10
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::new("id", Need::Optional),
        Column::new("cents", Need::Required),
        Column::new("at", Need::Required),
        Column::new("status", Need::Ignored),
    ];

    /// The id and line of each row, or the message of the failure.
    fn read(text: &str) -> std::result::Result<Vec<(String, i64, u64)>, String> {
        let found = read_from(text.as_bytes());
        assert_eq!(read_from(ByteByByte(text.as_bytes())), found, "{text:?}");
        found
    }

    fn read_from(input: impl Read) -> std::result::Result<Vec<(String, i64, u64)>, String> {
        let read = || {
            let mut rows = Rows::new("in", COLUMNS, input)?;
            let mut all = Vec::new();
            while rows.advance()? {
                rows.time("at")?;
                all.push((rows.name("id", 8)?.to_owned(), rows.cents("cents")?, rows.line()));
            }
            Ok(all)
        };
        read().map_err(|failure: Failure| match failure {
            Failure::Usage(message) => message,
            other => panic!("{other:?}"),
        })
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
            ("id,cents\n", "in:1: no column at; expected the csv header [id],cents,at"),
            (
                "cents,at,curency,cents\n",
                "in:1: unknown column \"curency\"; column cents twice; expected the csv header [id],cents,at",
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
                &format!("cents,at\n1.5,{at}\n"),
                "in:2: column cents: \"1.5\": expected a whole number of cents",
            ),
            (
                "cents,at\n1,2020-02-30T00:00:00Z\n",
                "in:2: column at: \"2020-02-30T00:00:00Z\": expected an RFC 3339 time such as 1997-01-01T00:00:00Z (there is no such day or time of day)",
            ),
            (
                &format!("cents,at,id\n1,{at},123456789\n"),
                "in:2: column id: \"123456789\": expected at most 8 bytes",
            ),
            (&format!("{{\"at\":\"{at}\"}}"), "in:1: no column cents in this JSON object"),
            (
                "{\"at\":[1]}",
                "in:1: column at: \"[1]\": expected a string or a whole number",
            ),
            (
                "{\"ad\":1}",
                "in:1: unknown column \"ad\"; expected id, cents, at, status",
            ),
            ("{\"at\":\"20", "in:1: JSON without its end (EOF while parsing a string): is the file cut?"),
            ("{\"at\" 1}", "in:1: expected a JSON object on one line: expected `:` at its column 7"),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_quote_without_end_is_found_before_memory_is() {
        let text = format!("cents,at,id\n1,2,\"{}", "x\n".repeat(4 << 20));
        let expected = "in:2: a row of more than 1024 KiB: does a quoted field lack its end?";
        assert_eq!(read(&text), Err(expected.to_owned()));
    }
}
