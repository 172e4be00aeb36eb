//! `billstream export`: every invoice that matches, across lost connections.

use clap::Args;

use billstream::client::{Client, Export as Invoices};
use billstream::proto::report::{ExportRequest, SummaryRequest};

use super::connection::Connection;
use super::failure::{enough, Result};
use super::filter::Filter;
use super::invoices::{ColumnArgs, InvoiceWriter};
use super::output::{Format, FormatArgs};
use super::progress::Progress;

/// Prints every invoice that matches, in the order of their creation
///
/// The set is that of the start: invoices created meanwhile are not in it. After a lost connection it
/// goes on where it was, so that no invoice is missing and none comes twice. Ctrl-C says where to go on
/// from.
#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    filter: Filter,
    /// Only invoices with a higher sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0,
        value_parser = clap::value_parser!(i64).range(0..))]
    after_sequence: i64,
    /// Invoices to print at the most; 0: all
    #[arg(long, value_name = "ROWS", default_value_t = 0,
        value_parser = clap::value_parser!(i64).range(0..))]
    max_rows: i64,
    /// As it is now in any case
    #[arg(long, hide = true)]
    batched: bool,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Export) -> Result<()> {
    let progress = Progress::rows();
    let client = args.connection.client(&progress)?;
    let mut out = InvoiceWriter::new(args.format.or(Format::Csv), &args.columns)?;
    let mut invoices = client.export(&request(args));
    let mut printed = 0;
    let result = set_total(args, &client, &progress)
        .and_then(|()| print(&mut invoices, &mut out, &progress, &mut printed));
    // Also the rows before a failure, which is about those after them.
    let result = out.flush().and(result);
    enough(result.map_err(|failure| failure.or_go_on(|| go_on(args, printed, invoices.cursor()))))
}

fn request(args: &Export) -> ExportRequest {
    ExportRequest {
        customer_id: args.filter.scope.customer_id(),
        statuses: args.filter.statuses(),
        issued_from: args.filter.scope.issued_from(),
        issued_until: args.filter.scope.issued_until(),
        after_sequence: args.after_sequence,
        max_rows: args.max_rows,
        ..ExportRequest::default()
    }
}

/// Says how many rows will come, where that is known.
fn set_total(args: &Export, client: &Client, progress: &Progress) -> Result<()> {
    if args.filter.is_all() && args.after_sequence == 0 {
        let all = client.summary(&SummaryRequest::default())?.invoice_count as u64;
        let asked_for = if args.max_rows > 0 { args.max_rows as u64 } else { all };
        progress.set_total(all.min(asked_for));
    }
    Ok(())
}

fn print(
    invoices: &mut Invoices,
    out: &mut InvoiceWriter,
    progress: &Progress,
    printed: &mut u64,
) -> Result<()> {
    for batch in invoices {
        let batch = batch?;
        batch.iter().try_for_each(|invoice| out.write(invoice))?;
        // Whoever reads along shall not wait, when the next batch does, for rows that are here already.
        out.end_page()?;
        *printed += batch.len() as u64;
        progress.set(*printed);
    }
    Ok(())
}

fn go_on(args: &Export, printed: u64, cursor: i64) -> String {
    let left = match args.max_rows as u64 {
        0 => String::new(),
        asked_for => format!(" --max-rows {}", asked_for - printed),
    };
    format!("{printed} rows are printed; go on with --after-sequence {cursor}{left}")
}
