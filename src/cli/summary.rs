//! `billstream summary`: counts and sums by currency.

use clap::Args;

use billstream::proto::report::SummaryRequest;

use super::connection::Connection;
use super::failure::Result;
use super::filter::Scope;
use super::output::{Cell, Format, FormatArgs};
use super::progress::Progress;
use super::totals::print_totals;

/// Prints counts and sums of invoices by currency
///
/// last_sequence is the highest of the whole database, whatever the filter.
#[derive(Args)]
pub struct Summary {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Summary) -> Result<()> {
    let request = SummaryRequest {
        customer_id: args.scope.customer_id(),
        issued_from: args.scope.issued_from(),
        issued_until: args.scope.issued_until(),
        ..SummaryRequest::default()
    };
    let summary = args.connection.client(&Progress::hidden())?.summary(&request)?;
    let fields = [
        ("invoice_count", Cell::Int(summary.invoice_count)),
        ("last_sequence", Cell::Int(summary.last_sequence)),
    ];
    print_totals(args.format.or(Format::Table), &fields, &summary.totals)
}
