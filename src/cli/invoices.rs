//! Invoices as rows, for `list` and `export`.

use billstream::client::InvoiceRef;
use billstream::proto::report::InvoiceStatus;

use super::failure::Result;
use super::output::Cell;
use super::values;
use super::writing::{FileFormat, RowFile, RowKind, WritingArgs};

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
        Cell::Amount(invoice.total_amount_cents, invoice.currency),
        Cell::Text(invoice.currency),
        Cell::Time(invoice.issued_at),
        Cell::Text(invoice.memo),
        Cell::Text(values::status_name(status)),
        Cell::Amount(invoice.paid_cents, invoice.currency),
        Cell::Int(invoice.sequence),
    ]
}

/// A file of invoices, or stdout.
pub fn file(args: &WritingArgs, default: FileFormat) -> Result<RowFile> {
    let example = cells(InvoiceRef::default());
    let kind = RowKind { names: &COLUMNS, of_csv: IMPORT_COLUMNS, example: &example };
    RowFile::create(args, default, &kind)
}
