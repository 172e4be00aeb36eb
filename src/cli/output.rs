//! Rows as a table, csv or ndjson, on stdout unless a command writes them elsewhere.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};

use billstream::model::Timestamp;
use clap::{Args, ValueEnum};

use super::failure::{Failure, Result};
use super::notation::{AmountNotation, TimeNotation};
use super::table::{Kind, Table};
use super::values;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned columns
    Table,
    /// RFC 4180 with a header, lines end in LF
    Csv,
    /// One JSON object a line
    Ndjson,
}

/// The flag of every command that prints rows.
#[derive(Args)]
pub struct FormatArgs {
    /// How to write stdout [default: table, but csv for export and reconcile]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

impl FormatArgs {
    pub fn or(&self, default: Format) -> Format {
        self.format.unwrap_or(default)
    }
}

/// A field of a row.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    Text(&'a str),
    Int(i64),
    /// Minor units of a currency.
    Amount(i64, &'a str),
    Bool(bool),
    Time(Timestamp),
}

/// How cells are written that are not to be as they are.
pub struct Style {
    pub amounts: AmountNotation,
    /// None: RFC 3339, in UTC.
    pub times: Option<TimeNotation>,
    /// Of a csv: texts are in quotes, and none of them is a formula to a spreadsheet.
    pub safe_cells: bool,
}

/// What a row has, and what of it is written under which name.
pub struct Columns {
    /// For each column, which cell of the row goes there.
    pub cells: Vec<usize>,
    /// For each column, what the output calls it.
    pub headers: Vec<String>,
}

/// Writes rows that all have the same columns. Nothing is certain to be out before a `flush`.
pub struct RowWriter<W: Write> {
    /// What messages call the output.
    name: String,
    columns: Columns,
    style: Option<Style>,
    scratch: String,
    sink: Sink<W>,
}

enum Sink<W: Write> {
    Table(Table<W>),
    Csv(Box<csv::Writer<W>>),
    Ndjson(W),
}

/// Stdout in large writes. The caller flushes.
pub fn stdout() -> BufWriter<Stdout> {
    BufWriter::with_capacity(64 << 10, io::stdout())
}

impl<W: Write> RowWriter<W> {
    /// A writer to stdout of rows whose cells are named `columns`, with all of them, as they are.
    pub fn new(format: Format, columns: &[&str], out: W) -> Result<RowWriter<W>> {
        let headers = columns.iter().map(|name| name.to_string()).collect();
        let columns = Columns { cells: (0..columns.len()).collect(), headers };
        RowWriter::styled("stdout", format, columns, None, b',', out)
    }

    /// A writer to `out`, which messages call `name`. A csv has `delimiter` between its columns.
    pub fn styled(
        name: &str,
        format: Format,
        mut columns: Columns,
        style: Option<Style>,
        delimiter: u8,
        out: W,
    ) -> Result<RowWriter<W>> {
        let sink = match format {
            Format::Table => Sink::Table(Table::new(columns.headers.clone(), out)),
            Format::Csv => {
                let is_safe = style.as_ref().is_some_and(|style| style.safe_cells);
                let mut csv = Box::new(csv_writer(delimiter, is_safe).from_writer(out));
                csv.write_record(&columns.headers).map_err(|e| csv_error(name, e))?;
                Sink::Csv(csv)
            }
            Format::Ndjson => {
                columns.headers.iter_mut().for_each(|header| *header = escaped(header));
                Sink::Ndjson(out)
            }
        };
        Ok(RowWriter { name: name.to_owned(), columns, style, scratch: String::new(), sink })
    }

    pub fn row(&mut self, cells: &[Cell]) -> Result<()> {
        let Columns { cells: selection, headers } = &self.columns;
        let style = self.style.as_ref();
        let scratch = &mut self.scratch;
        match &mut self.sink {
            Sink::Csv(csv) => {
                for (i, &cell) in selection.iter().enumerate() {
                    let text = cells[cell].styled(style, scratch);
                    let text = text.map_err(|why| unwritten(&headers[i], &cells[0], &why))?;
                    csv.write_field(text).map_err(|e| csv_error(&self.name, e))?;
                }
                csv.write_record(None::<&[u8]>).map_err(|e| csv_error(&self.name, e))
            }
            Sink::Ndjson(out) => {
                scratch.clear();
                let mut separator = '{';
                for (i, &cell) in selection.iter().enumerate() {
                    begin_member(scratch, &mut separator, &headers[i]);
                    let written = cells[cell].write_json(style, scratch);
                    written.map_err(|why| unwritten(&headers[i], &cells[0], &why))?;
                }
                scratch.push_str("}\n");
                out.write_all(scratch.as_bytes()).map_err(|e| Failure::output(&self.name, e))
            }
            Sink::Table(table) => {
                let mut row = Vec::with_capacity(selection.len());
                for (i, &cell) in selection.iter().enumerate() {
                    let text = cells[cell].styled(style, scratch);
                    let text = text.map_err(|why| unwritten(&headers[i], &cells[0], &why))?;
                    row.push((printable(text), cells[cell].kind()));
                }
                table.row(row).map_err(|e| Failure::output(&self.name, e))
            }
        }
    }

    /// For a table whose rows are not to be held back until their widths are known.
    pub fn set_widths(&mut self, widths: &[usize]) -> Result<()> {
        match &mut self.sink {
            Sink::Table(table) => {
                table.set_widths(widths).map_err(|e| Failure::output(&self.name, e))
            }
            Sink::Csv(_) | Sink::Ndjson(_) => Ok(()),
        }
    }

    /// Brings out all rows written, but those that a table holds back to find its widths.
    pub fn end_page(&mut self) -> Result<()> {
        match &mut self.sink {
            Sink::Table(table) => table.end_page().map_err(|e| Failure::output(&self.name, e)),
            Sink::Csv(_) | Sink::Ndjson(_) => self.flush(),
        }
    }

    /// Brings out all rows written.
    pub fn flush(&mut self) -> Result<()> {
        match &mut self.sink {
            Sink::Table(table) => table.flush(),
            Sink::Ndjson(out) => out.flush(),
            Sink::Csv(csv) => csv.flush(),
        }
        .map_err(|e| Failure::output(&self.name, e))
    }
}

/// Text for a terminal: a control character of a memo must not act there.
pub fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut shown, c| {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
        shown
    })
}

impl<'a> Cell<'a> {
    /// The value as text, as it is. Numbers and times are written to `scratch`, which saves an allocation.
    pub fn text<'s>(self, scratch: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        scratch.clear();
        if let Cell::Text(text) = self {
            return text;
        }
        self.push_to(scratch);
        scratch
    }

    /// The value as text in `style`, or why that cannot have it.
    fn styled<'s>(self, style: Option<&Style>, scratch: &'s mut String) -> Written<&'s str>
    where
        'a: 's,
    {
        let Some(style) = style else { return Ok(self.text(scratch)) };
        scratch.clear();
        match self {
            Cell::Text(text) if style.safe_cells && text.starts_with(FORMULA) => {
                scratch.extend(["'", text]);
            }
            Cell::Text(text) => return Ok(text),
            Cell::Amount(cents, currency) => style.amounts.write(scratch, cents, currency)?,
            Cell::Time(time) => match &style.times {
                Some(notation) => notation.write(scratch, time)?,
                None => values::write_time(scratch, time),
            },
            Cell::Int(_) | Cell::Bool(_) => self.push_to(scratch),
        }
        Ok(scratch)
    }

    fn push_to(self, out: &mut String) {
        match self {
            Cell::Text(text) => out.push_str(text),
            Cell::Int(value) | Cell::Amount(value, _) => {
                write!(out, "{value}").expect("a String takes everything");
            }
            Cell::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Cell::Time(time) => values::write_time(out, time),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Cell::Text(_) => Kind::Text,
            Cell::Int(_) | Cell::Amount(..) => Kind::Number,
            Cell::Bool(_) | Cell::Time(_) => Kind::Short,
        }
    }

    /// Amounts in major units are strings: a reader of JSON makes a binary fraction of a number.
    fn write_json(self, style: Option<&Style>, out: &mut String) -> Written<()> {
        let is_minor = style.is_none_or(|style| style.amounts.is_minor());
        match self {
            Cell::Int(_) | Cell::Bool(_) => self.push_to(out),
            Cell::Amount(..) if is_minor => self.push_to(out),
            Cell::Time(time) if style.is_none_or(|style| style.times.is_none()) => {
                out.push('"');
                values::write_time(out, time);
                out.push('"');
            }
            Cell::Text(text) => out.push_str(&json_string(text)),
            Cell::Amount(..) | Cell::Time(_) => {
                out.push_str(&json_string(self.styled(style, &mut String::new())?));
            }
        }
        Ok(())
    }
}

/// The error is why a style cannot have a value.
type Written<T> = std::result::Result<T, String>;

/// What a spreadsheet may take for the beginning of a formula, or of another cell
/// (<https://owasp.org/www-community/attacks/CSV_Injection>).
const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

/// Of a value that the style of the output cannot have, in the row that begins with `first`.
fn unwritten(column: &str, first: &Cell, why: &str) -> Failure {
    let row = values::quoted(first.text(&mut String::new()));
    Failure::Failed(format!("row {row}: column {column}: {why}"))
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a str is always JSON")
}

/// A name as it is between quotes in JSON.
fn escaped(name: &str) -> String {
    let quoted = json_string(name);
    quoted[1..quoted.len() - 1].to_owned()
}

fn begin_member(out: &mut String, separator: &mut char, name: &str) {
    write!(out, "{separator}\"{name}\":").expect("a String takes everything");
    *separator = ',';
}

/// Writes an object of values as they are; `names` are of ours and need no escaping.
pub fn write_json<'a>(out: &mut String, names: &[&str], cells: impl IntoIterator<Item = Cell<'a>>) {
    let mut separator = '{';
    for (name, cell) in names.iter().zip(cells) {
        begin_member(out, &mut separator, name);
        cell.write_json(None, out).expect("a value as it is can be written");
    }
    out.push('}');
}

fn csv_writer(delimiter: u8, is_safe: bool) -> csv::WriterBuilder {
    let mut builder = csv::WriterBuilder::new();
    builder.delimiter(delimiter);
    if is_safe {
        builder.quote_style(csv::QuoteStyle::NonNumeric);
    }
    builder
}

fn csv_error(name: &str, error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::output(name, error),
        other => Failure::Failed(format!("{name}: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, rows: &[[Cell; 2]]) -> String {
        let mut out = Vec::new();
        let mut writer = RowWriter::new(format, &["memo", "cents"], &mut out).unwrap();
        rows.iter().for_each(|row| writer.row(row).unwrap());
        writer.flush().unwrap();
        drop(writer);
        String::from_utf8(out).unwrap()
    }

    const ROWS: [[Cell; 2]; 2] = [
        [Cell::Text("a \"b\", c"), Cell::Int(5)],
        [Cell::Text("line\n\u{1b}[31m"), Cell::Int(-12_345_678)],
    ];

    #[test]
    fn csv_is_quoted_where_it_must_be() {
        let expected = "memo,cents\n\"a \"\"b\"\", c\",5\n\"line\n\u{1b}[31m\",-12345678\n";
        assert_eq!(written(Format::Csv, &ROWS), expected);
    }

    #[test]
    fn ndjson_has_an_object_a_line() {
        let expected = "{\"memo\":\"a \\\"b\\\", c\",\"cents\":5}\n\
                        {\"memo\":\"line\\n\\u001b[31m\",\"cents\":-12345678}\n";
        assert_eq!(written(Format::Ndjson, &ROWS), expected);
    }

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let expected = "memo                  cents\n\
                        a \"b\", c                  5\n\
                        line\\n\\u{1b}[31m  -12345678\n";
        assert_eq!(written(Format::Table, &ROWS), expected);
    }

    #[test]
    fn no_rows_have_a_header_still() {
        assert_eq!(written(Format::Csv, &[]), "memo,cents\n");
        assert_eq!(written(Format::Table, &[]), "memo  cents\n");
        assert_eq!(written(Format::Ndjson, &[]), "");
    }
}
