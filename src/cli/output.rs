//! Rows on stdout, as a table, csv or ndjson.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};

use billstream::model::Timestamp;
use clap::{Args, ValueEnum};

use super::failure::{Failure, Result};
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
    Bool(bool),
    Time(Timestamp),
}

/// Writes rows that all have the same columns. Nothing is certain to be out before a `flush`.
pub struct RowWriter<W: Write> {
    columns: Vec<&'static str>,
    /// For each column, which cell of the row goes there.
    selection: Vec<usize>,
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
    /// A writer of rows whose cells are named `columns`, with all of them.
    pub fn new(format: Format, columns: &[&'static str], out: W) -> Result<RowWriter<W>> {
        RowWriter::with_selection(format, columns, (0..columns.len()).collect(), out)
    }

    /// A writer of the cells `selection` of rows whose cells are named `columns`.
    pub fn with_selection(
        format: Format,
        columns: &[&'static str],
        selection: Vec<usize>,
        out: W,
    ) -> Result<RowWriter<W>> {
        let columns: Vec<_> = selection.iter().map(|&i| columns[i]).collect();
        let sink = match format {
            Format::Table => Sink::Table(Table::new(columns.clone(), out)),
            Format::Csv => {
                let mut csv = Box::new(csv::Writer::from_writer(out));
                csv.write_record(&columns).map_err(csv_error)?;
                Sink::Csv(csv)
            }
            Format::Ndjson => Sink::Ndjson(out),
        };
        Ok(RowWriter { columns, selection, scratch: String::new(), sink })
    }

    pub fn row(&mut self, cells: &[Cell]) -> Result<()> {
        match &mut self.sink {
            Sink::Csv(csv) => {
                for &i in &self.selection {
                    csv.write_field(cells[i].text(&mut self.scratch)).map_err(csv_error)?;
                }
                csv.write_record(None::<&[u8]>).map_err(csv_error)
            }
            Sink::Ndjson(out) => {
                self.scratch.clear();
                write_json(
                    &mut self.scratch,
                    &self.columns,
                    self.selection.iter().map(|&i| cells[i]),
                );
                self.scratch.push('\n');
                out.write_all(self.scratch.as_bytes()).map_err(Failure::stdout)
            }
            Sink::Table(table) => {
                let shown = |i: &usize| {
                    let text = printable(cells[*i].text(&mut self.scratch));
                    (text, cells[*i].kind())
                };
                table.row(self.selection.iter().map(shown).collect()).map_err(Failure::stdout)
            }
        }
    }

    /// For a table whose rows are not to be held back until their widths are known.
    pub fn set_widths(&mut self, widths: &[usize]) -> Result<()> {
        match &mut self.sink {
            Sink::Table(table) => table.set_widths(widths).map_err(Failure::stdout),
            Sink::Csv(_) | Sink::Ndjson(_) => Ok(()),
        }
    }

    /// Brings out all rows written, but those that a table holds back to find its widths.
    pub fn end_page(&mut self) -> Result<()> {
        match &mut self.sink {
            Sink::Table(table) => table.end_page().map_err(Failure::stdout),
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
        .map_err(Failure::stdout)
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
    /// The value as text. Numbers and times are written to `scratch`, which saves an allocation.
    pub fn text<'s>(self, scratch: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        scratch.clear();
        match self {
            Cell::Text(text) => return text,
            Cell::Int(value) => write!(scratch, "{value}").expect("a String takes everything"),
            Cell::Bool(value) => scratch.push_str(if value { "true" } else { "false" }),
            Cell::Time(time) => values::write_time(scratch, time),
        }
        scratch
    }

    fn kind(self) -> Kind {
        match self {
            Cell::Text(_) => Kind::Text,
            Cell::Int(_) => Kind::Number,
            Cell::Bool(_) | Cell::Time(_) => Kind::Short,
        }
    }

    fn write_json(self, out: &mut String) {
        match self {
            Cell::Text(text) => out.push_str(&json_string(text)),
            Cell::Int(value) => write!(out, "{value}").expect("a String takes everything"),
            Cell::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Cell::Time(time) => {
                out.push('"');
                values::write_time(out, time);
                out.push('"');
            }
        }
    }
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a str is always JSON")
}

/// Writes an object; `names` are of ours and need no escaping.
pub fn write_json<'a>(out: &mut String, names: &[&str], cells: impl IntoIterator<Item = Cell<'a>>) {
    let mut separator = '{';
    for (name, cell) in names.iter().zip(cells) {
        write!(out, "{separator}\"{name}\":").expect("a String takes everything");
        cell.write_json(out);
        separator = ',';
    }
    out.push('}');
}

fn csv_error(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::stdout(error),
        other => Failure::Failed(format!("stdout: {other:?}")),
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
