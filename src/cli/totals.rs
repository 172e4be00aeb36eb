//! Answers with totals by currency, for `summary` and `import`.

use billstream::proto::report::CurrencyTotal;

use super::answer::Rows;
use super::failure::Result;
use super::output::{Cell, Format};

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

/// Prints one answer that has fields of its own and totals by currency; a csv has a row a currency.
pub fn print_totals(
    format: Format,
    fields: &[(&'static str, Cell)],
    totals: &[CurrencyTotal],
) -> Result<()> {
    let rows = totals.iter().map(total_cells).collect();
    Rows { name: "totals", columns: TOTAL_COLUMNS, rows }.print(format, fields)
}
