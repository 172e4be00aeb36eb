//! Answers with totals by currency, for `summary` and `import`.

use billstream::proto::report::CurrencyTotal;

use super::answer::Rows;
use super::failure::Result;
use super::output::{Cell, Format};

/// The first five are of every answer.
const COLUMNS: [&str; 9] = [
    "currency",
    "invoice_count",
    "total_cents",
    "paid_cents",
    "outstanding_cents",
    "credit_note_count",
    "credit_note_cents",
    "void_count",
    "void_cents",
];

fn cells(total: &CurrencyTotal) -> [Cell<'_>; COLUMNS.len()] {
    [
        Cell::Text(&total.currency),
        Cell::Int(total.invoice_count),
        Cell::Int(total.total_cents),
        Cell::Int(total.paid_cents),
        Cell::Int(total.outstanding_cents),
        Cell::Int(total.credit_note_count),
        Cell::Int(total.credit_note_cents),
        Cell::Int(total.void_count),
        Cell::Int(total.void_cents),
    ]
}

/// Prints one answer that has fields of its own and totals by currency; a csv has a row a currency. What is of credit
/// notes and void is in tables and csv where there is some, and in ndjson always.
pub fn print_totals(
    format: Format,
    fields: &[(&'static str, Cell)],
    totals: &[CurrencyTotal],
) -> Result<()> {
    let has_more = totals.iter().any(|total| total.credit_note_count + total.void_count > 0);
    if has_more || format == Format::Ndjson {
        let rows = totals.iter().map(cells).collect();
        return Rows { name: "totals", columns: COLUMNS, rows }.print(format, fields);
    }
    let columns = five(COLUMNS);
    let rows = totals.iter().map(|total| five(cells(total))).collect();
    Rows { name: "totals", columns, rows }.print(format, fields)
}

fn five<T>([a, b, c, d, e, ..]: [T; COLUMNS.len()]) -> [T; 5] {
    [a, b, c, d, e]
}
