//! Rows of a csv input: records under a header, whose columns may come in any order.

use std::io::BufRead;

use super::csv_records::Records;
use super::rows::{Column, Need, Wrong};
use super::values;

pub struct CsvRows<R> {
    records: Records<R>,
    /// For each column, which field of a record it is.
    fields: Vec<Option<usize>>,
    /// Fields of the header, and so of each record.
    width: usize,
}

impl<R: BufRead> CsvRows<R> {
    /// Reads the header, and sets `line` to where it is.
    pub fn new(input: R, columns: &[Column], line: &mut u64) -> Result<CsvRows<R>, Wrong> {
        let mut records = Records::new(input, *line);
        records.advance(line)?;
        let header: Vec<_> = (0..records.len()).map(|i| records.field(i)).collect();
        let (fields, width) = (find(columns, &header)?, header.len());
        Ok(CsvRows { records, fields, width })
    }

    /// Whether the header has the column `i`.
    pub fn has(&self, i: usize) -> bool {
        self.fields[i].is_some()
    }

    /// The column `i` of the record at hand; empty when the header does not have it.
    pub fn value(&self, i: usize) -> &[u8] {
        self.fields[i].map_or(b"", |field| self.records.field(field))
    }

    /// Goes to the next record, and sets `line` to where it begins; false when there is none.
    pub fn advance(&mut self, line: &mut u64) -> Result<bool, Wrong> {
        if !self.records.advance(line)? {
            return Ok(false);
        }
        if self.records.is_empty() {
            return Err(Wrong::input("the row is empty, with nothing but commas: remove it"));
        }
        match self.records.len() {
            fields if fields == self.width => Ok(true),
            fields => {
                let cut = self.records.is_unended() && fields < self.width;
                let question = if cut { ": is the file cut?" } else { "" };
                let width = self.width;
                Err(Wrong::Input(format!(
                    "{fields} fields; expected {width}, as in the header{question}"
                )))
            }
        }
    }
}

/// Finds the columns in a csv header: for each column, which field it is.
fn find(columns: &[Column], header: &[&[u8]]) -> Result<Vec<Option<usize>>, Wrong> {
    let mut fields = vec![None; columns.len()];
    let mut problems = Vec::new();
    for (i, &name) in header.iter().enumerate() {
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
    let expected = header_of(columns);
    Err(Wrong::Input(format!("{}; expected the csv header {expected}", problems.join("; "))))
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
