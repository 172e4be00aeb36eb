//! `billstream show`: one invoice, with the events that were applied to it.

use clap::Args;

use billstream::client::{Client, InvoiceRef};
use billstream::proto::report::{Event, GetInvoiceRequest, Invoice};

use super::answer::Rows;
use super::connection::Connection;
use super::events;
use super::failure::{enough, Failure, Result};
use super::invoices;
use super::output::{Format, FormatArgs};
use super::progress::Progress;
use super::stderr::say;

/// Prints one invoice, and the events that were applied to it, newest first
///
/// As a table or ndjson, the fields of the invoice and then its events; a csv has a row an event, which begins with
/// the fields of the invoice.
#[derive(Args)]
pub struct Show {
    /// The invoice
    #[arg(value_name = "INVOICE_ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    invoice_id: String,
    /// Events to print at the most, the newest; 0: all
    #[arg(long, value_name = "EVENTS", default_value_t = 100)]
    max_events: usize,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Show) -> Result<()> {
    let client = args.connection.client(&Progress::hidden())?;
    let (invoice, events, is_all) = read(args, &client)?;
    let fields = invoices::cells(InvoiceRef::from(&invoice));
    let fields: Vec<_> = invoices::COLUMNS.into_iter().zip(fields).collect();
    let rows = events.iter().map(events::cells).collect();
    let rows = Rows { name: "events", columns: events::COLUMNS, rows };
    enough(rows.print(args.format.or(Format::Table), &fields))?;
    if !is_all {
        say("there are older events; --max-events 0 prints all");
    }
    Ok(())
}

/// The invoice with its events, and whether they are all.
fn read(args: &Show, client: &Client) -> Result<(Invoice, Vec<Event>, bool)> {
    let most = if args.max_events == 0 { usize::MAX } else { args.max_events };
    let invoice_id = args.invoice_id.clone();
    let mut request = GetInvoiceRequest { invoice_id, ..GetInvoiceRequest::default() };
    let (mut invoice, mut events) = (None, Vec::new());
    loop {
        request.max_events = (most - events.len()).try_into().unwrap_or(i32::MAX);
        let page = client.invoice(&request)?;
        events.extend(page.events);
        request.before_event_sequence = page.next_before_event_sequence;
        // Of the moment of the newest events.
        let invoice = invoice.get_or_insert(page.invoice);
        let is_all = request.before_event_sequence == 0;
        if is_all || events.len() >= most {
            let none = || Failure::Failed("the server gave no invoice".to_owned());
            return Ok((invoice.take().ok_or_else(none)?, events, is_all));
        }
    }
}
