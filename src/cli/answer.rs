//! An answer with fields of its own and rows, on stdout: for `summary`, `import` and `show`.

use std::io::Write;

use super::failure::{Failure, Result};
use super::output::{printable, stdout, write_json, Cell, Format, RowWriter};

/// The rows of an answer.
pub struct Rows<'a, const N: usize> {
    /// Of the field that has them in the message.
    pub name: &'static str,
    pub columns: [&'static str; N],
    pub rows: Vec<[Cell<'a>; N]>,
}

impl<const N: usize> Rows<'_, N> {
    /// Prints `fields` and the rows.
    ///
    /// As a table: the fields, one a line, then the rows. As ndjson: one object, like the message. As csv: the rows,
    /// each begins with the fields, except those that it has itself.
    pub fn print(&self, format: Format, fields: &[(&'static str, Cell)]) -> Result<()> {
        let mut out = stdout();
        match format {
            Format::Table => {
                let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                let mut scratch = String::new();
                for (name, cell) in fields {
                    let value = printable(cell.text(&mut scratch));
                    let line = format!("{name:width$}  {value}");
                    writeln!(out, "{}", line.trim_end()).map_err(Failure::stdout)?;
                }
                if !self.rows.is_empty() {
                    writeln!(out).map_err(Failure::stdout)?;
                    return self.write(format, &[], out);
                }
            }
            Format::Csv => {
                let own = |name| !self.columns.contains(name);
                let fields: Vec<_> = fields.iter().filter(|(name, _)| own(name)).copied().collect();
                return self.write(format, &fields, out);
            }
            Format::Ndjson => writeln!(out, "{}", self.json(fields)).map_err(Failure::stdout)?,
        }
        out.flush().map_err(Failure::stdout)
    }

    fn write(
        &self,
        format: Format,
        fields: &[(&'static str, Cell)],
        out: impl Write,
    ) -> Result<()> {
        let names = fields.iter().map(|&(name, _)| name);
        let columns: Vec<_> = names.chain(self.columns).collect();
        let mut rows = RowWriter::new(format, &columns, out)?;
        for row in &self.rows {
            let cells = fields.iter().map(|&(_, cell)| cell);
            rows.row(&cells.chain(*row).collect::<Vec<_>>())?;
        }
        rows.flush()
    }

    fn json(&self, fields: &[(&'static str, Cell)]) -> String {
        let (names, cells): (Vec<_>, Vec<_>) = fields.iter().copied().unzip();
        let mut json = String::new();
        write_json(&mut json, &names, cells);
        json.pop();
        json.extend([",\"", self.name, "\":["]);
        for (i, row) in self.rows.iter().enumerate() {
            json.push_str(if i == 0 { "" } else { "," });
            write_json(&mut json, &self.columns, *row);
        }
        json.push_str("]}");
        json
    }
}
