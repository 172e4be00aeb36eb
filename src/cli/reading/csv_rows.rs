//! Rows of a csv input: records under a header, whose columns may come in any order.

use std::io::BufRead;

use super::csv_records::Records;
use super::header::{self, Header};
use super::layout::Layout;
use super::Wrong;

pub struct CsvRows<R> {
    records: Records<R>,
    header: Header,
    /// Fields of the header, and so of each record.
    width: usize,
    /// Records without a byte in any field, as spreadsheets write them, so far.
    empty: u64,
}

impl<R: BufRead> CsvRows<R> {
    /// Reads the header, and sets `line` to where it is.
    pub fn new(input: R, layout: &Layout, line: &mut u64) -> Result<CsvRows<R>, Wrong> {
        let records = Records::new(input, layout.delimiter.unwrap_or(b','), *line);
        let header = Header { fields: Vec::new(), extra: Vec::new() };
        let mut rows = CsvRows { records, header, width: 0, empty: 0 };
        rows.next(line)?;
        let names: Vec<_> = (0..rows.records.len()).map(|i| rows.records.field(i)).collect();
        (rows.header, rows.width) = (header::read(layout, &names)?, names.len());
        Ok(rows)
    }

    /// Columns of the header that are not known, and may be there.
    pub fn extra(&self) -> &[String] {
        &self.header.extra
    }

    /// Whether the header has the column `i`.
    pub fn has(&self, i: usize) -> bool {
        self.header.fields[i].is_some()
    }

    /// The column `i` of the record at hand; empty when the header does not have it.
    pub fn value(&self, i: usize) -> &[u8] {
        self.header.fields[i].map_or(b"", |field| self.records.field(field))
    }

    /// Empty records that were skipped.
    pub fn empty(&self) -> u64 {
        self.empty
    }

    /// Goes to the next record, and sets `line` to where it begins; false when there is none.
    pub fn advance(&mut self, line: &mut u64) -> Result<bool, Wrong> {
        if !self.next(line)? {
            return Ok(false);
        }
        match self.records.len() {
            fields if fields == self.width => Ok(true),
            fields => {
                let cut = self.records.is_unended() && fields < self.width;
                let question = if cut { ": is the file cut?" } else { "" };
                let width = self.width;
                Err(Wrong::row(format!(
                    "{fields} fields; expected {width}, as in the header{question}"
                )))
            }
        }
    }

    /// Goes to the next record that is not empty.
    fn next(&mut self, line: &mut u64) -> Result<bool, Wrong> {
        while self.records.advance(line)? {
            if !self.records.is_empty() {
                return Ok(true);
            }
            self.empty += 1;
        }
        Ok(false)
    }
}
