//! `billstream export`: every invoice that matches, or every event, across lost connections.

use clap::Args;

use billstream::client::{self, Client, Invoices};
use billstream::proto::report::{Event, ExportEventsRequest, ExportRequest, SummaryRequest};

use super::connection::Connection;
use super::events;
use super::failure::{enough, Result};
use super::filter::Filter;
use super::invoices;
use super::progress::Progress;
use super::writing::{FileFormat, RowFile, WritingArgs};

/// Prints every invoice that matches, in the order of their creation; or the events that were applied
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
    /// The events that were applied, payments, refunds and voids, in the order of their application, in the
    /// place of the invoices
    #[arg(long, conflicts_with_all = ["customer", "since", "until", "status", "after_sequence"])]
    events: bool,
    /// Only events with a higher event_sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, requires = "events",
        value_parser = clap::value_parser!(i64).range(0..))]
    after_event_sequence: i64,
    /// Rows to print at the most; 0: all
    #[arg(long, value_name = "ROWS", default_value_t = 0,
        value_parser = clap::value_parser!(i64).range(0..))]
    max_rows: i64,
    /// As it is now in any case
    #[arg(long, hide = true)]
    batched: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    writing: WritingArgs,
}

pub fn run(args: &Export) -> Result<()> {
    let progress = match args.writing.is_to_a_file() {
        true => Progress::rows_to_a_file(),
        false => Progress::rows(),
    };
    let client = args.connection.client(&progress)?;
    if args.events {
        return export_events(args, &client, &progress);
    }
    let mut out = invoices::file(&args.writing, FileFormat::Csv)?;
    let mut export = client.export(&request(args));
    let mut printed = 0;
    let write = |batch: &Invoices| {
        batch.iter().try_for_each(|invoice| out.row(&invoices::cells(invoice)))?;
        // Whoever reads along shall not wait, when the next batch does, for rows that are here already.
        out.end_page().map(|()| batch.len())
    };
    let result = set_total(args, &client, &progress)
        .and_then(|()| print(&mut export, &progress, &mut printed, write));
    end(out, result, || go_on(args, printed, "sequence", export.cursor()))
}

/// Ends the output, also of rows before a failure, which is about those after them.
fn end(out: RowFile, result: Result<()>, go_on: impl FnOnce() -> String) -> Result<()> {
    let how = match out.keeps_what_came() {
        true => go_on(),
        false => "no file is written".to_owned(),
    };
    enough(out.end(result.map_err(|failure| failure.or_go_on(|| how))))
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

/// `write` prints a batch, and says how many rows it has.
fn print<B>(
    batches: &mut impl Iterator<Item = client::Result<B>>,
    progress: &Progress,
    printed: &mut u64,
    mut write: impl FnMut(&B) -> Result<usize>,
) -> Result<()> {
    for batch in batches {
        *printed += write(&batch?)? as u64;
        progress.set(*printed);
    }
    Ok(())
}

fn go_on(args: &Export, printed: u64, sequence: &str, cursor: i64) -> String {
    let left = match args.max_rows as u64 {
        0 => String::new(),
        asked_for => format!(" --max-rows {}", asked_for - printed),
    };
    format!("{printed} rows are printed; go on with --after-{sequence} {cursor}{left}")
}

/// The same of events.
fn export_events(args: &Export, client: &Client, progress: &Progress) -> Result<()> {
    let request = ExportEventsRequest {
        after_event_sequence: args.after_event_sequence,
        max_events: args.max_rows,
        ..ExportEventsRequest::default()
    };
    let mut out = events::file(&args.writing, FileFormat::Csv)?;
    let mut export = client.export_events(&request);
    let mut printed = 0;
    let write = |batch: &Vec<Event>| {
        batch.iter().try_for_each(|event| out.row(&events::cells(event)))?;
        out.end_page().map(|()| batch.len())
    };
    let result = print(&mut export, progress, &mut printed, write);
    end(out, result, || go_on(args, printed, "event-sequence", export.cursor()))
}
