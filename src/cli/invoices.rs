//! The columns of invoices on stdout, for `list` and `export`.

use std::io::{BufWriter, Stdout};

use billstream::client::InvoiceRef;
use billstream::proto::report::InvoiceStatus;

use super::failure::Result;
use super::output::{stdout, Cell, Format, RowWriter};
use super::values;

/// Every field of an invoice: those of an import first, in its order.
pub const COLUMNS: [&str; 9] = [
    "invoice_id",
    "customer_id",
    "total_amount_cents",
    "currency",
    "issued_at",
    "memo",
    "status",
    "paid_cents",
    "sequence",
];
const IMPORT_COLUMNS: usize = 6;

pub fn cells(invoice: InvoiceRef<'_>) -> [Cell<'_>; COLUMNS.len()] {
    let status = invoice.status().enum_value_or(InvoiceStatus::INVOICE_STATUS_UNSPECIFIED);
    [
        Cell::Text(invoice.invoice_id),
        Cell::Text(invoice.customer_id),
        Cell::Int(invoice.total_amount_cents),
        Cell::Text(invoice.currency),
        Cell::Time(invoice.issued_at),
        Cell::Text(invoice.memo),
        Cell::Text(values::status_name(status)),
        Cell::Int(invoice.paid_cents),
        Cell::Int(invoice.sequence),
    ]
}

/// Which columns to print, and in which order.
#[derive(clap::Args)]
pub struct ColumnArgs {
    /// The columns to print, as a list with commas, or `all` [default: in a csv the six that import
    /// reads, so that export gives back what import took; else all]
    #[arg(long, value_name = "NAMES", value_parser = selection)]
    columns: Option<Selection>,
}

#[derive(Clone)]
struct Selection(Vec<usize>);

fn selection(text: &str) -> std::result::Result<Selection, String> {
    if text == "all" {
        return Ok(Selection((0..COLUMNS.len()).collect()));
    }
    let find = |name: &str| {
        let found = COLUMNS.iter().position(|&column| column == name);
        found.ok_or_else(|| format!("column {name:?}; expected some of {}", COLUMNS.join(",")))
    };
    text.split(',').map(find).collect::<std::result::Result<_, _>>().map(Selection)
}

/// Prints invoices on stdout.
pub struct InvoiceWriter {
    rows: RowWriter<BufWriter<Stdout>>,
}

impl InvoiceWriter {
    pub fn new(format: Format, columns: &ColumnArgs) -> Result<InvoiceWriter> {
        let default = if format == Format::Csv { IMPORT_COLUMNS } else { COLUMNS.len() };
        let selection = match &columns.columns {
            Some(Selection(selection)) => selection.clone(),
            None => (0..default).collect(),
        };
        let rows = RowWriter::with_selection(format, &COLUMNS, selection, stdout())?;
        Ok(InvoiceWriter { rows })
    }

    pub fn write(&mut self, invoice: InvoiceRef<'_>) -> Result<()> {
        self.rows.row(&cells(invoice))
    }

    /// See [`RowWriter::end_page`].
    pub fn end_page(&mut self) -> Result<()> {
        self.rows.end_page()
    }

    pub fn flush(&mut self) -> Result<()> {
        self.rows.flush()
    }
}
