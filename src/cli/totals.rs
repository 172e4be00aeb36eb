//! Answers with totals by currency, for `summary` and `import`.

use std::io::Write;

use billstream::proto::report::CurrencyTotal;

use super::failure::{Failure, Result};
use super::output::{printable, stdout, write_json, Cell, Format, RowWriter};

const TOTAL_COLUMNS: [&str; 5] =
    ["currency", "invoice_count", "total_cents", "paid_cents", "outstanding_cents"];

fn total_cells(total: &CurrencyTotal) -> [Cell<'_>; 5] {
    [
        Cell::Text(&total.currency),
        Cell::Int(total.invoice_count),
        Cell::Int(total.total_cents),
        Cell::Int(total.paid_cents),
        Cell::Int(total.outstanding_cents),
    ]
}

/// Prints one answer that has fields of its own and totals by currency.
///
/// As a table: the fields, one a line, then the totals. As ndjson: one object, like the message. As
/// csv: one row a currency that begins with the fields, except those that the row has itself.
pub fn print_totals(
    format: Format,
    fields: &[(&'static str, Cell)],
    totals: &[CurrencyTotal],
) -> Result<()> {
    let mut out = stdout();
    match format {
        Format::Table => {
            let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let mut scratch = String::new();
            for (name, cell) in fields {
                let value = printable(cell.text(&mut scratch));
                writeln!(out, "{name:width$}  {value}").map_err(Failure::stdout)?;
            }
            if !totals.is_empty() {
                writeln!(out).map_err(Failure::stdout)?;
                write_totals(format, &[], totals, out)?;
                return Ok(());
            }
        }
        Format::Csv => {
            let own = |name| !TOTAL_COLUMNS.contains(name);
            let fields: Vec<_> = fields.iter().filter(|(name, _)| own(name)).copied().collect();
            return write_totals(format, &fields, totals, out);
        }
        Format::Ndjson => {
            writeln!(out, "{}", totals_json(fields, totals)).map_err(Failure::stdout)?
        }
    }
    out.flush().map_err(Failure::stdout)
}

fn write_totals(
    format: Format,
    fields: &[(&'static str, Cell)],
    totals: &[CurrencyTotal],
    out: impl Write,
) -> Result<()> {
    let names = fields.iter().map(|&(name, _)| name);
    let columns: Vec<_> = names.chain(TOTAL_COLUMNS).collect();
    let mut rows = RowWriter::new(format, &columns, out)?;
    for total in totals {
        let cells = fields.iter().map(|&(_, cell)| cell);
        rows.row(&cells.chain(total_cells(total)).collect::<Vec<_>>())?;
    }
    rows.flush()
}

fn totals_json(fields: &[(&'static str, Cell)], totals: &[CurrencyTotal]) -> String {
    let (names, cells): (Vec<_>, Vec<_>) = fields.iter().copied().unzip();
    let mut json = String::new();
    write_json(&mut json, &names, cells);
    json.pop();
    json.push_str(",\"totals\":[");
    for (i, total) in totals.iter().enumerate() {
        json.push_str(if i == 0 { "" } else { "," });
        write_json(&mut json, &TOTAL_COLUMNS, total_cells(total));
    }
    json.push_str("]}");
    json
}
