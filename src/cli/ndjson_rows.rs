//! Rows of an ndjson input: one flat JSON object a line.

use std::fmt;
use std::io::{BufRead, Read};

use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::rows::{too_long, Column, Need, Wrong, MAX_ROW_BYTES};
use super::values;

pub struct NdjsonRows<R> {
    input: R,
    columns: &'static [Column],
    text: Vec<u8>,
    /// For each column, its value in the row at hand.
    values: Vec<Option<String>>,
    /// The line that is read next.
    next_line: u64,
}

impl<R: BufRead> NdjsonRows<R> {
    /// Reads `input`, whose first byte is on line `line`.
    pub fn new(input: R, columns: &'static [Column], line: u64) -> NdjsonRows<R> {
        let values = vec![None; columns.len()];
        NdjsonRows { input, columns, text: Vec::new(), values, next_line: line }
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
    pub fn advance(&mut self, line: &mut u64) -> Result<bool, Wrong> {
        if !self.next_line(line)? {
            return Ok(false);
        }
        self.values.fill(None);
        let mut json = serde_json::Deserializer::from_slice(&self.text);
        json.deserialize_map(Object { columns: self.columns, values: &mut self.values })
            .and_then(|()| json.end())
            .map_err(|error| Wrong::Input(self.explain(&error)))?;
        self.check_required()
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
    fn check_required(&self) -> Result<bool, Wrong> {
        let mut absent = self.columns.iter().zip(&self.values).filter(|(_, value)| value.is_none());
        match absent.find(|(column, _)| column.need == Need::Required) {
            Some((column, _)) => {
                Err(Wrong::Input(format!("no column {} in this JSON object", column.name)))
            }
            None => Ok(true),
        }
    }

    fn explain(&self, error: &serde_json::Error) -> String {
        let text = error.to_string();
        // Its line is always 1: that of the file goes before the message.
        let text = text.split(" at line ").next().unwrap_or(&text);
        match error.classify() {
            serde_json::error::Category::Eof if self.text.ends_with(b"\n") => GOES_ON.to_owned(),
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

const GOES_ON: &str = "one JSON object a line is expected; this one does not end on its line";

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

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
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
