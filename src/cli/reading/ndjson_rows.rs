//! Rows of an ndjson input: one flat JSON object a line.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufRead, Read};

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::header;
use super::layout::Layout;
use super::problems::Complaint;
use super::{too_long, Need, Wrong, MAX_ROW_BYTES};

pub struct NdjsonRows<R> {
    input: R,
    text: Vec<u8>,
    /// For each column, its value in the row at hand.
    values: Vec<Option<String>>,
    /// Members that are not known: whether they may be there or not, each is told once.
    extra: Vec<String>,
    unknown: Vec<String>,
    /// The line that is read next.
    next_line: u64,
}

impl<R: BufRead> NdjsonRows<R> {
    /// Reads `input`, whose first byte is on line `line`.
    pub fn new(input: R, layout: &Layout, line: u64) -> NdjsonRows<R> {
        let values = vec![None; layout.fields.len()];
        let (text, extra, unknown) = (Vec::new(), Vec::new(), Vec::new());
        NdjsonRows { input, text, values, extra, unknown, next_line: line }
    }

    /// Members that are not known, and may be there, of the objects so far.
    pub fn extra(&self) -> &[String] {
        &self.extra
    }

    /// Whether the object at hand has the column `i`.
    pub fn has(&self, i: usize) -> bool {
        self.values[i].is_some()
    }

    /// The column `i` of the row at hand; empty when the object does not have it.
    pub fn value(&self, i: usize) -> &[u8] {
        self.values[i].as_deref().unwrap_or("").as_bytes()
    }

    /// Goes to the next object, and sets `line` to where it is; false when there is none.
    pub fn advance(&mut self, layout: &Layout, line: &mut u64) -> Result<bool, Wrong> {
        if !self.next_line(line)? {
            return Ok(false);
        }
        self.values.fill(None);
        let mut json = serde_json::Deserializer::from_slice(&self.text);
        let object = Object {
            layout,
            values: &mut self.values,
            extra: &mut self.extra,
            unknown: &mut self.unknown,
            wrong: None,
        };
        let read = json.deserialize_map(object).and_then(|wrong| json.end().map(|()| wrong));
        match read.map_err(|error| self.explain(&error))? {
            Some(complaints) => Err(Wrong::Row(complaints)),
            None => self.check_required(layout),
        }
    }

    /// Reads the next line that is not blank.
    fn next_line(&mut self, line: &mut u64) -> Result<bool, Wrong> {
        loop {
            self.text.clear();
            *line = self.next_line;
            self.next_line += 1;
            let mut limited = (&mut self.input).take(MAX_ROW_BYTES + 1);
            limited.read_until(b'\n', &mut self.text)?;
            if self.text.is_empty() {
                return Ok(false);
            }
            if self.text.len() as u64 > MAX_ROW_BYTES {
                return Err(too_long());
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// A required member that is not there.
    fn check_required(&self, layout: &Layout) -> Result<bool, Wrong> {
        let fields = layout.fields.iter().zip(&self.values);
        let absent =
            fields.filter(|(field, value)| field.need == Need::Required && value.is_none());
        let absent: Vec<_> = absent.filter(|(field, _)| field.fixed.is_none()).collect();
        match absent.first() {
            Some((field, _)) => {
                let complaint =
                    Complaint::new(format!("no column {} in this JSON object", field.shown()));
                Err(Wrong::Row(vec![complaint.hint(header::set_hint(field))]))
            }
            None => Ok(true),
        }
    }

    fn explain(&self, error: &serde_json::Error) -> Wrong {
        let text = error.to_string();
        // Its line is always 1: that of the file goes before the message.
        let text = text.split(" at line ").next().unwrap_or(&text);
        match error.classify() {
            serde_json::error::Category::Eof if self.text.ends_with(b"\n") => Wrong::input(GOES_ON),
            serde_json::error::Category::Eof => {
                Wrong::row(format!("JSON without its end ({text}): is the file cut?"))
            }
            serde_json::error::Category::Data => Wrong::row(text),
            _ => Wrong::row(format!(
                "expected a JSON object on one line: {text} at its column {}",
                error.column()
            )),
        }
    }
}

const GOES_ON: &str = "one JSON object a line is expected; this one does not end on its line";

/// How many members that are not known are remembered.
const MAX_UNKNOWN: usize = 20;

/// Reads a flat JSON object into `values`, as the texts that a csv would have. Gives what is wrong with it.
struct Object<'a> {
    layout: &'a Layout,
    values: &'a mut [Option<String>],
    extra: &'a mut Vec<String>,
    unknown: &'a mut Vec<String>,
    wrong: Option<Vec<Complaint>>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Option<Vec<Complaint>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(name) = map.next_key::<Cow<str>>()? {
            let value: &RawValue = map.next_value()?;
            if self.layout.ignores(name.as_bytes()) {
                continue;
            }
            let mut is_read = false;
            for i in self.layout.reads(name.as_bytes()) {
                is_read = true;
                match text(value, self.layout) {
                    Err(complaint) => self.wrong(complaint.at(&self.layout.fields[i].shown())),
                    Ok(text) => {
                        if self.values[i].replace(text).is_some() {
                            return Err(de::Error::custom(format!("column {name} twice")));
                        }
                    }
                }
            }
            if !is_read {
                self.unknown(&name);
            }
        }
        Ok(self.wrong)
    }
}

impl Object<'_> {
    fn wrong(&mut self, complaint: Complaint) {
        self.wrong.get_or_insert_default().push(complaint);
    }

    fn unknown(&mut self, name: &str) {
        let may_be_there = self.layout.ignores_extra(name.as_bytes());
        let known = if may_be_there { &mut *self.extra } else { &mut *self.unknown };
        let is_new = known.len() < MAX_UNKNOWN && !known.iter().any(|known| known == name);
        if is_new {
            known.push(name.to_owned());
        }
        if !may_be_there {
            let complaint = is_new.then(|| header::unknown_member(self.layout, name));
            self.wrong.get_or_insert_default().extend(complaint);
        }
    }
}

/// A string, or the digits of a number as they are.
fn text(value: &RawValue, layout: &Layout) -> Result<String, Complaint> {
    let json = value.get();
    let wrong = |expected| Complaint::wrong(json, expected);
    match json.as_bytes()[0] {
        b'"' => serde_json::from_str(json).map_err(|_| wrong("a string of Unicode")),
        b'n' => Ok(String::new()),
        b'-' | b'0'..=b'9' if !json.contains('.') => Ok(json.to_owned()),
        // With another mark 1.234 would be taken for a thousand and more.
        b'-' | b'0'..=b'9' => match layout.decimal {
            None | Some('.') => Ok(json.to_owned()),
            Some(_) => Err(wrong("a string: the decimal mark of a JSON number is .")),
        },
        _ => Err(wrong("a string or a number")),
    }
}
