//! Rows of an input, csv or ndjson, with messages that name the line, the column, the value and
//! what was expected.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use protobuf::well_known_types::timestamp::Timestamp;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::failure::{Failure, Result};
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
const MAX_ROW_BYTES: u64 = 1 << 20;

/// Reads rows one after the other; the columns of the row at hand are asked for by name.
pub struct Rows<R: Read> {
    name: String,
    columns: &'static [Column],
    source: Source<R>,
    /// The line on which the row at hand begins, counted from 1.
    line: u64,
}

enum Source<R: Read> {
    Csv(Box<CsvRows<R>>),
    Ndjson(NdjsonRows<R>),
    /// An input without a byte that may be ndjson.
    Empty,
}

impl<R: Read> Rows<R> {
    /// Reads `input`, which messages call `name`. What begins with `{` is ndjson.
    pub fn new(name: &str, columns: &'static [Column], input: R) -> Result<Rows<R>> {
        let mut rows = Rows { name: name.to_owned(), columns, source: Source::Empty, line: 1 };
        let mut input = BufReader::with_capacity(64 << 10, input);
        let start = input.fill_buf().map_err(|error| Failure::io(name, error))?;
        match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => rows.source = Source::Ndjson(NdjsonRows::new(input, columns.len())),
            Some(_) => rows.source = Source::Csv(Box::new(rows.csv(input)?)),
            None if name.ends_with(".ndjson") || name.ends_with(".jsonl") => {}
            None => return Err(rows.bad("the input is empty; expected a csv header, or ndjson")),
        }
        Ok(rows)
    }

    /// Goes to the next row; false when there is none.
    pub fn advance(&mut self) -> Result<bool> {
        match &mut self.source {
            Source::Csv(csv) => match csv.advance(&mut self.line) {
                Ok(more) => Ok(more),
                Err(message) => Err(self.bad(&message)),
            },
            Source::Ndjson(ndjson) => match ndjson.advance(&mut self.line, self.columns) {
                Ok(more) => Ok(more),
                Err(message) => Err(self.bad(&message)),
            },
            Source::Empty => Ok(false),
        }
    }

    /// The line of the row at hand.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The names of the ignored columns that a csv header has.
    pub fn ignored(&self) -> Vec<&'static str> {
        let Source::Csv(csv) = &self.source else {
            return Vec::new();
        };
        let present =
            |i: &usize| csv.fields[*i].is_some() && self.columns[*i].need == Need::Ignored;
        (0..self.columns.len()).filter(present).map(|i| self.columns[i].name).collect()
    }

    /// A column of the row at hand as it is; empty when it is absent.
    pub fn text(&self, column: &'static str) -> Result<&str> {
        let i = self.columns.iter().position(|known| known.name == column);
        let i = i.expect("a column of this input");
        let bytes = match &self.source {
            Source::Csv(csv) => csv.fields[i].map_or(&b""[..], |field| csv.field(field)),
            Source::Ndjson(ndjson) => ndjson.values[i].as_deref().unwrap_or("").as_bytes(),
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
        values::time(text).ok_or_else(|| self.wrong(column, text, values::EXPECTED_TIME))
    }

    /// `FILE:LINE: column NAME: "VALUE": expected ...`
    pub fn wrong(&self, column: &str, value: &str, expected: &str) -> Failure {
        self.bad(&format!("column {column}: {}: expected {expected}", values::quoted(value)))
    }

    /// `FILE:LINE: ...`
    pub fn bad(&self, message: &str) -> Failure {
        Failure::Usage(format!("{}:{}: {message}", self.name, self.line))
    }

    fn csv(&self, input: BufReader<R>) -> Result<CsvRows<R>> {
        // csv has a buffer of its own; this one only served the look at the first byte.
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            // With CR LF as the terminator a record would end at its CR, and lines be counted late.
            .terminator(csv::Terminator::Any(b'\n'))
            .buffer_capacity(64 << 10)
            .from_reader(Guard { input, quotes: 0, bytes: 0, ended: false });
        let mut header = csv::ByteRecord::new();
        reader.read_byte_record(&mut header).map_err(|error| self.bad(&error.to_string()))?;
        let crlf = header.as_slice().ends_with(b"\r");
        if crlf {
            header = header.iter().map(|name| name.strip_suffix(b"\r").unwrap_or(name)).collect();
        }
        let (fields, width) = (self.fields(&header)?, header.len());
        Ok(CsvRows { reader, record: csv::ByteRecord::new(), fields, width, crlf })
    }

    /// Finds the columns in a csv header: for each column, which field it is.
    fn fields(&self, header: &csv::ByteRecord) -> Result<Vec<Option<usize>>> {
        let mut fields = vec![None; self.columns.len()];
        let mut problems = Vec::new();
        for (i, name) in header.iter().enumerate() {
            match self.columns.iter().position(|column| column.name.as_bytes() == name) {
                Some(known) if fields[known].is_none() => fields[known] = Some(i),
                Some(known) => problems.push(format!("column {} twice", self.columns[known].name)),
                None => problems.push(format!("unknown column {}", lossy(name))),
            }
        }
        let found = self.columns.iter().zip(&fields);
        let missing = found.filter(|(column, i)| column.need == Need::Required && i.is_none());
        problems.extend(missing.map(|(column, _)| format!("no column {}", column.name)));
        if problems.is_empty() {
            return Ok(fields);
        }
        // A file that is no csv at all has one long unknown column, and every problem there is.
        problems.truncate(4);
        Err(self.bad(&format!(
            "{}; expected the csv header {}",
            problems.join("; "),
            self.header()
        )))
    }

    /// What a header may have, the optional columns in brackets.
    fn header(&self) -> String {
        let names = self.columns.iter().filter_map(|column| match column.need {
            Need::Required => Some(column.name.to_owned()),
            Need::Optional => Some(format!("[{}]", column.name)),
            Need::Ignored => None,
        });
        names.collect::<Vec<_>>().join(",")
    }
}

fn lossy(bytes: &[u8]) -> String {
    values::quoted(&String::from_utf8_lossy(bytes))
}

struct CsvRows<R: Read> {
    reader: csv::Reader<Guard<BufReader<R>>>,
    record: csv::ByteRecord,
    /// For each column, which field of a record it is.
    fields: Vec<Option<usize>>,
    /// Fields of the header, and so of each record.
    width: usize,
    /// Lines end in CR LF, as those of the header.
    crlf: bool,
}

impl<R: Read> CsvRows<R> {
    /// A field of the record at hand.
    fn field(&self, i: usize) -> &[u8] {
        let field = &self.record[i];
        match i + 1 == self.record.len() && self.crlf {
            true => field.strip_suffix(b"\r").unwrap_or(field),
            false => field,
        }
    }

    fn advance(&mut self, line: &mut u64) -> std::result::Result<bool, String> {
        loop {
            *line = self.reader.position().line();
            self.reader.get_mut().bytes = 0;
            let more = self.reader.read_byte_record(&mut self.record);
            if !more.map_err(|error| error.to_string())? {
                return Ok(false);
            }
            if self.record.len() > 1 || self.field(0) != b"" {
                break;
            }
        }
        // Where a record begins: blank lines before it are not of it, newlines in its fields are.
        let newlines = self.record.as_slice().iter().filter(|&&byte| byte == b'\n').count() as u64;
        let ended = self.reader.get_ref().ended;
        *line = self.reader.position().line() - newlines - u64::from(!ended);
        // Only the last record can lack the end of a quote, and then it ends with the input.
        if ended && self.reader.get_ref().quotes % 2 == 1 {
            return Err("a quoted field without its end: is the file cut?".to_owned());
        }
        match self.record.len() {
            fields if fields == self.width => Ok(true),
            fields => Err(format!(
                "{fields} fields; expected {}, as in the header{}",
                self.width,
                if ended && fields < self.width { ": is the file cut?" } else { "" }
            )),
        }
    }
}

/// Sees what the csv reader does not tell: a quote without its end, and a row without one.
struct Guard<R> {
    input: R,
    /// Quotes seen. A quote inside a field is doubled, so the sum is even outside of fields.
    quotes: u64,
    /// Bytes read for the row at hand.
    bytes: u64,
    /// The end of the input was seen.
    ended: bool,
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes > MAX_ROW_BYTES {
            return Err(too_long());
        }
        let n = self.input.read(buffer)?;
        self.quotes += buffer[..n].iter().filter(|&&byte| byte == b'"').count() as u64;
        self.bytes += n as u64;
        self.ended = n == 0;
        Ok(n)
    }
}

fn too_long() -> io::Error {
    io::Error::other(format!(
        "a row of more than {} KiB: does a quoted field lack its end?",
        MAX_ROW_BYTES >> 10
    ))
}

struct NdjsonRows<R: Read> {
    input: BufReader<R>,
    text: Vec<u8>,
    /// For each column, its value in the row at hand.
    values: Vec<Option<String>>,
    lines: u64,
}

impl<R: Read> NdjsonRows<R> {
    fn new(input: BufReader<R>, columns: usize) -> NdjsonRows<R> {
        NdjsonRows { input, text: Vec::new(), values: vec![None; columns], lines: 0 }
    }

    fn advance(&mut self, line: &mut u64, columns: &[Column]) -> std::result::Result<bool, String> {
        loop {
            self.text.clear();
            self.lines += 1;
            *line = self.lines;
            let mut limited = (&mut self.input).take(MAX_ROW_BYTES + 1);
            limited.read_until(b'\n', &mut self.text).map_err(|error| error.to_string())?;
            if self.text.is_empty() {
                return Ok(false);
            }
            if self.text.len() as u64 > MAX_ROW_BYTES {
                return Err(too_long().to_string());
            }
            if !self.text.trim_ascii().is_empty() {
                break;
            }
        }
        self.values.fill(None);
        let mut json = serde_json::Deserializer::from_slice(&self.text);
        json.deserialize_map(Object { columns, values: &mut self.values })
            .and_then(|()| json.end())
            .map_err(|error| self.explain(&error))?;
        self.missing(columns)
    }

    /// A required member that is not there.
    fn missing(&self, columns: &[Column]) -> std::result::Result<bool, String> {
        let mut absent = columns.iter().zip(&self.values).filter(|(_, value)| value.is_none());
        match absent.find(|(column, _)| column.need == Need::Required) {
            Some((column, _)) => Err(format!("no column {} in this JSON object", column.name)),
            None => Ok(true),
        }
    }

    fn explain(&self, error: &serde_json::Error) -> String {
        let text = error.to_string();
        // Its line is always 1: that of the file goes before the message.
        let text = text.split(" at line ").next().unwrap_or(&text);
        match error.classify() {
            serde_json::error::Category::Eof => {
                format!("JSON without its end ({text}): is the file cut?")
            }
            serde_json::error::Category::Data => text.to_owned(),
            _ => format!(
                "expected a JSON object on one line: {text} at its column {}",
                error.column()
            ),
        }
    }
}

/// Reads a flat JSON object into `values`, as the texts that a csv would have.
struct Object<'a> {
    columns: &'a [Column],
    values: &'a mut [Option<String>],
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let Some(i) = self.columns.iter().position(|column| column.name == name) else {
                let known: Vec<_> = self.columns.iter().map(|column| column.name).collect();
                let (name, known) = (values::quoted(&name), known.join(", "));
                return Err(de::Error::custom(format!("unknown column {name}; expected {known}")));
            };
            let value: serde_json::Value = map.next_value()?;
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(number) if !number.is_f64() => number.to_string(),
                serde_json::Value::Null => String::new(),
                other => {
                    let value = values::quoted(&other.to_string());
                    let message =
                        format!("column {name}: {value}: expected a string or a whole number");
                    return Err(de::Error::custom(message));
                }
            };
            if self.values[i].replace(text).is_some() {
                return Err(de::Error::custom(format!("column {name} twice")));
            }
        }
        Ok(())
    }
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
        let read = || {
            let mut rows = Rows::new("in", COLUMNS, text.as_bytes())?;
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
    }

    #[test]
    fn ndjson_is_seen_by_its_brace() {
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
                "in:2: column at: \"2020-02-30T00:00:00Z\": expected an RFC 3339 time such as 1997-01-01T00:00:00Z",
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
