//! Reading: rows of an input, csv or ndjson, as its [`layout`] says, with messages that name the line, the column,
//! the value, what was expected, and the option that helps.
//!
//! From the bytes on: [`input`] (what can be read again), [`encoding`] to UTF-8, [`beginning`] (csv or ndjson),
//! [`csv_rows`] over [`csv_records`] and [`header`], [`ndjson_rows`], and here the values of a row. [`mapping`] has
//! layouts that are kept in files, [`problems`] what is wrong, [`expected`] what a whole file comes to.

mod beginning;
mod csv_records;
mod csv_rows;
mod encoding;
mod expected;
mod header;
mod input;
mod layout;
mod mapping;
mod ndjson_rows;
mod problems;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::{self, Read};

use protobuf::well_known_types::timestamp::Timestamp;

use billstream::currency::minor_digits;

use super::failure::{Failure, Result};
use super::values::quoted;
use beginning::{Kind, Rest};
use csv_rows::CsvRows;
use encoding::{Malformed, Text};
use ndjson_rows::NdjsonRows;
use problems::{Complaint, Problems};

pub use expected::{ExpectArgs, Expected, Tally};
pub use input::{display_name, open, Input};
pub use layout::{delimiter, pair, Layout, LayoutArgs, Pair};

/// A column that an input may have.
pub struct Column {
    pub name: &'static str,
    pub need: Need,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

const ENCODING_HINT: &str =
    "--encoding windows-1252, or another name, says which encoding the text has";
const LOWERCASE_HINT: &str = "--lowercase-currencies takes currencies in lower case";

/// Why there is no row.
enum Wrong {
    /// What is wrong with the row at hand. The next one can be read.
    Row(Vec<Complaint>),
    /// What is wrong with the input at the line at hand. It cannot be told where the next row would begin.
    Input(Complaint),
    /// It cannot be read, which is no fault of what it says.
    Io(io::Error),
}

impl Wrong {
    fn row(message: impl Into<String>) -> Wrong {
        Wrong::Row(vec![Complaint::new(message)])
    }

    fn input(message: impl Into<String>) -> Wrong {
        Wrong::Input(Complaint::new(message))
    }
}

impl From<Complaint> for Wrong {
    fn from(complaint: Complaint) -> Wrong {
        Wrong::Input(complaint)
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Malformed>()) {
            Some(malformed) => Wrong::input(malformed.to_string()),
            None => Wrong::Io(error),
        }
    }
}

/// What comes next of an input.
pub enum Next<T> {
    Row(T),
    /// A row that is wrong, which is remembered.
    Bad,
    End,
}

/// Reads rows one after the other; the columns of the row at hand are asked for by name.
pub struct Rows<'a, R: Read> {
    name: &'a str,
    layout: &'a Layout,
    source: Source<R>,
    /// The line on which the row at hand begins, counted from 1.
    line: u64,
    problems: RefCell<Problems>,
    /// A currency would be one in upper case.
    has_lowercase: Cell<bool>,
}

enum Source<R: Read> {
    Csv(Box<CsvRows<Rest<Text<R>>>>),
    Ndjson(Box<NdjsonRows<Rest<Text<R>>>>),
    /// An input without a row that may be ndjson; or one after which nothing can be read.
    Over,
}

impl<'a, R: Read> Rows<'a, R> {
    /// Reads `input`, which messages call `name`. What begins with `{` is ndjson.
    pub fn new(name: &'a str, layout: &'a Layout, input: R) -> Result<Rows<'a, R>> {
        let (source, problems, has_lowercase) = (Source::Over, RefCell::default(), Cell::default());
        let mut rows = Rows { name, layout, source, line: 1, problems, has_lowercase };
        match rows.open(input) {
            Ok(source) => rows.source = source,
            Err(wrong) => {
                rows.remember(wrong)?;
                rows.finish()?;
            }
        }
        Ok(rows)
    }

    fn open(&mut self, input: R) -> std::result::Result<Source<R>, Wrong> {
        let text = Text::open(input, self.layout.charset)?;
        let (kind, input) = beginning::open(text, &mut self.line)?;
        Ok(match kind {
            Kind::Csv => Source::Csv(Box::new(CsvRows::new(input, self.layout, &mut self.line)?)),
            Kind::Ndjson if self.layout.delimiter.is_some() => {
                return Err(Wrong::input("the input is ndjson, and --delimiter is of a csv"));
            }
            Kind::Ndjson => {
                Source::Ndjson(Box::new(NdjsonRows::new(input, self.layout, self.line)))
            }
            Kind::Empty if self.name.ends_with(".ndjson") || self.name.ends_with(".jsonl") => {
                Source::Over
            }
            Kind::Empty => {
                self.line = 1;
                let message = "the input is empty; expected a csv header, or ndjson";
                return Err(Wrong::input(message));
            }
        })
    }

    /// Reads the next row with `read`, which gives none where a value is wrong.
    pub fn next<T>(&mut self, read: impl FnOnce(&Self) -> Option<T>) -> Result<Next<T>> {
        let advanced = match &mut self.source {
            Source::Csv(csv) => csv.advance(&mut self.line),
            Source::Ndjson(ndjson) => ndjson.advance(self.layout, &mut self.line),
            Source::Over => Ok(false),
        };
        match advanced {
            Ok(true) => Ok(read(self).map_or(Next::Bad, Next::Row)),
            Ok(false) => Ok(Next::End),
            Err(wrong) => self.remember(wrong).map(|()| Next::Bad),
        }
    }

    fn remember(&mut self, wrong: Wrong) -> Result<()> {
        match wrong {
            Wrong::Row(complaints) => complaints.into_iter().for_each(|it| self.complain(it)),
            Wrong::Input(complaint) => {
                self.complain(complaint);
                self.problems.get_mut().end();
                self.source = Source::Over;
            }
            Wrong::Io(error) => return Err(Failure::io(self.name, error)),
        }
        Ok(())
    }

    /// Fails when something was wrong, with all of it.
    pub fn finish(&mut self) -> Result<()> {
        self.problems.get_mut().take().map_or(Ok(()), Err)
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
            Source::Over => false,
        };
        let columns = self.layout.fields.iter().enumerate();
        let ignored = columns.filter(move |(i, field)| field.need == Need::Ignored && has(*i));
        ignored.map(|(_, field)| field.column)
    }

    /// What is to be said of the input at its end.
    pub fn notes(&self) -> Vec<String> {
        let (empty, extra): (u64, &[String]) = match &self.source {
            Source::Csv(csv) => (csv.empty(), csv.extra()),
            Source::Ndjson(ndjson) => (0, ndjson.extra()),
            Source::Over => (0, &[]),
        };
        let mut notes = Vec::new();
        if empty > 0 {
            notes.push(format!("{}: skipped {empty} empty rows", self.name));
        }
        if !extra.is_empty() {
            let names: Vec<_> = extra.iter().map(|name| quoted(name)).collect();
            notes.push(format!("{}: ignored the columns {}", self.name, names.join(", ")));
        }
        if self.has_lowercase.get() {
            notes.push(format!("{}: {LOWERCASE_HINT}", self.name));
        }
        notes
    }

    /// A column of the row at hand as it is; empty when it is absent.
    pub fn text(&self, column: &'static str) -> Option<&str> {
        let i = self.layout.index(column);
        let bytes = match (&self.layout.fields[i].fixed, &self.source) {
            (Some(fixed), _) => fixed.as_bytes(),
            (None, Source::Csv(csv)) => csv.value(i),
            (None, Source::Ndjson(ndjson)) => ndjson.value(i),
            (None, Source::Over) => b"",
        };
        let text = std::str::from_utf8(bytes);
        text.map_err(|_| {
            let complaint = Complaint::wrong(&String::from_utf8_lossy(bytes), "UTF-8 text");
            self.bad(column, complaint.hint(ENCODING_HINT));
        })
        .ok()
    }

    /// A column that holds a name of at most `max_bytes`.
    pub fn name(&self, column: &'static str, max_bytes: usize) -> Option<&str> {
        match self.text(column)? {
            text if text.len() > max_bytes => {
                self.refuse(column, text, &format!("at most {max_bytes} bytes"))
            }
            text if text.contains('\0') => self.refuse(column, text, "text without NUL"),
            text => Some(text),
        }
    }

    /// As [`Rows::name`], and not empty.
    pub fn required_name(&self, column: &'static str, max_bytes: usize) -> Option<&str> {
        match self.name(column, max_bytes)? {
            "" => self.refuse(column, "", &format!("1 to {max_bytes} bytes")),
            text => Some(text),
        }
    }

    /// A column that holds a currency, which may be none, in upper case where the layout takes lower case for it.
    pub fn any_currency(&self, column: &'static str) -> Option<Cow<'_, str>> {
        let text = self.text(column)?;
        if !text.contains(|c: char| c.is_ascii_lowercase()) {
            return Some(text.into());
        }
        let upper = text.to_ascii_uppercase();
        if self.layout.lowercase_currencies {
            return Some(upper.into());
        }
        self.has_lowercase.set(self.has_lowercase.get() || minor_digits(&upper).is_some());
        Some(text.into())
    }

    /// A column that holds a currency of ISO 4217.
    pub fn currency(&self, column: &'static str) -> Option<Cow<'_, str>> {
        let code = self.any_currency(column)?;
        if minor_digits(&code).is_some() {
            return Some(code);
        }
        let complaint = Complaint::wrong(&code, "an ISO 4217 code such as USD");
        let would_help = minor_digits(&code.to_ascii_uppercase()).is_some();
        self.bad(column, if would_help { complaint.hint(LOWERCASE_HINT) } else { complaint });
        None
    }

    /// A column that holds an amount in `currency`, as its number of cents. Without a currency, which is wrong by
    /// itself, an amount in major units is not looked at.
    pub fn cents(&self, column: &'static str, currency: Option<&str>) -> Option<i64> {
        let amounts = &self.layout.amounts;
        if currency.is_none() && !amounts.is_minor() {
            return None;
        }
        let text = self.text(column)?;
        let wrong = |expected: String| self.refuse(column, text, &expected);
        amounts.parse(text, currency.unwrap_or_default()).map_or_else(wrong, Some)
    }

    /// A column that holds a time.
    pub fn time(&self, column: &'static str) -> Option<Timestamp> {
        let text = self.text(column)?;
        let wrong = |expected: String| self.refuse(column, text, &expected);
        self.layout.times.parse(text).map_or_else(wrong, Some)
    }

    /// Remembers that the value of a column is not what was expected.
    pub fn refuse<T>(&self, column: &'static str, value: &str, expected: &str) -> Option<T> {
        self.bad(column, Complaint::wrong(value, expected));
        None
    }

    /// Remembers what another says of a column of the row at hand.
    pub fn refused(&self, column: &'static str, says: &str) {
        let value = quoted(self.text(column).unwrap_or_default());
        self.bad(column, Complaint::new(format!("{value}: {says}")));
    }

    /// `FILE:LINE: column COLUMN: ...`
    fn bad(&self, column: &'static str, complaint: Complaint) {
        let field = &self.layout.fields[self.layout.index(column)];
        match field.fixed {
            // It is the same in every row.
            Some(_) => self.problems.borrow_mut().add_once(&format!("--set {column}"), complaint),
            None => self.complain(complaint.at(&field.shown())),
        }
    }

    /// `FILE:LINE: ...`
    fn complain(&self, complaint: Complaint) {
        self.problems.borrow_mut().add(&format!("{}:{}", self.name, self.line), complaint);
    }
}

/// Of a row past [`MAX_ROW_BYTES`].
fn too_long() -> Wrong {
    Wrong::input(format!(
        "a row of more than {} KiB: does a quoted field lack its end?",
        MAX_ROW_BYTES >> 10
    ))
}

#[cfg(test)]
mod tests;
