//! Records of a csv input. The csv crate reads them; what it lets pass is found here: a quote
//! without its end, a row without one, fields that are too few or too many.

use std::io::{self, Read};

use super::rows::{too_long, Column, Need, MAX_ROW_BYTES};
use super::values;

pub struct CsvRows<R: Read> {
    reader: csv::Reader<Guard<R>>,
    record: csv::ByteRecord,
    /// For each column, which field of a record it is.
    fields: Vec<Option<usize>>,
    /// Fields of the header, and so of each record.
    width: usize,
    /// Lines end in CR LF, as those of the header.
    crlf: bool,
}

impl<R: Read> CsvRows<R> {
    /// Reads the header.
    pub fn new(input: R, columns: &[Column]) -> Result<CsvRows<R>, String> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            // With CR LF as the terminator a record would end at its CR, and lines be counted late.
            .terminator(csv::Terminator::Any(b'\n'))
            .buffer_capacity(64 << 10)
            .from_reader(Guard { input, quotes: 0, bytes: 0, ended: false });
        let mut header = csv::ByteRecord::new();
        reader.read_byte_record(&mut header).map_err(|error| error.to_string())?;
        let crlf = header.as_slice().ends_with(b"\r");
        if crlf {
            header = header.iter().map(|name| name.strip_suffix(b"\r").unwrap_or(name)).collect();
        }
        let (fields, width) = (find(columns, &header)?, header.len());
        Ok(CsvRows { reader, record: csv::ByteRecord::new(), fields, width, crlf })
    }

    /// Whether the header has the column `i`.
    pub fn has(&self, i: usize) -> bool {
        self.fields[i].is_some()
    }

    /// The column `i` of the record at hand; empty when the header does not have it.
    pub fn value(&self, i: usize) -> &[u8] {
        self.fields[i].map_or(b"", |field| self.field(field))
    }

    /// A field of the record at hand.
    fn field(&self, i: usize) -> &[u8] {
        let field = &self.record[i];
        match i + 1 == self.record.len() && self.crlf {
            true => field.strip_suffix(b"\r").unwrap_or(field),
            false => field,
        }
    }

    /// Goes to the next record, and sets `line` to where it begins; false when there is none.
    pub fn advance(&mut self, line: &mut u64) -> Result<bool, String> {
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

/// Finds the columns in a csv header: for each column, which field it is.
fn find(columns: &[Column], header: &csv::ByteRecord) -> Result<Vec<Option<usize>>, String> {
    let mut fields = vec![None; columns.len()];
    let mut problems = Vec::new();
    for (i, name) in header.iter().enumerate() {
        match columns.iter().position(|column| column.name.as_bytes() == name) {
            Some(known) if fields[known].is_none() => fields[known] = Some(i),
            Some(known) => problems.push(format!("column {} twice", columns[known].name)),
            None => problems.push(format!("unknown column {}", lossy(name))),
        }
    }
    let found = columns.iter().zip(&fields);
    let missing = found.filter(|(column, i)| column.need == Need::Required && i.is_none());
    problems.extend(missing.map(|(column, _)| format!("no column {}", column.name)));
    if problems.is_empty() {
        return Ok(fields);
    }
    // A file that is no csv at all has one long unknown column, and every problem there is.
    problems.truncate(4);
    Err(format!("{}; expected the csv header {}", problems.join("; "), header_of(columns)))
}

/// What a header may have, the optional columns in brackets.
fn header_of(columns: &[Column]) -> String {
    let names = columns.iter().filter_map(|column| match column.need {
        Need::Required => Some(column.name.to_owned()),
        Need::Optional => Some(format!("[{}]", column.name)),
        Need::Ignored => None,
    });
    names.collect::<Vec<_>>().join(",")
}

fn lossy(bytes: &[u8]) -> String {
    values::quoted(&String::from_utf8_lossy(bytes))
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
