//! `billstream list`: invoices, page by page.

use clap::Args;

use billstream::client::Client;
use billstream::proto::report::ListInvoicesRequest;

use super::connection::Connection;
use super::failure::{enough, Result};
use super::filter::Filter;
use super::invoices;
use super::progress::Progress;
use super::writing::{FileFormat, RowFile, WritingArgs};

/// Prints invoices in the order of their creation, page by page
///
/// For all invoices of a large database `export` is much faster.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Invoices to ask for at a time; the server may give fewer
    #[arg(long, value_name = "ROWS", default_value_t = 1000,
        value_parser = clap::value_parser!(i32).range(1..))]
    page_size: i32,
    /// Invoices to print at the most; 0: all
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    limit: u64,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    writing: WritingArgs,
}

pub fn run(args: &List) -> Result<()> {
    let client = args.connection.client(&Progress::hidden())?;
    let mut out = invoices::file(&args.writing, FileFormat::Table)?;
    let listed = list(args, &client, &mut out);
    // What came before a failure is printed.
    enough(out.end(listed))
}

fn list(args: &List, client: &Client, out: &mut RowFile) -> Result<()> {
    let mut left = if args.limit == 0 { u64::MAX } else { args.limit };
    let mut request = first_page(args);
    loop {
        // Never more than are wanted: the pages of one listing may differ in size.
        request.page_size = args.page_size.min(left.try_into().unwrap_or(i32::MAX));
        let page = client.list(&request)?;
        page.invoices.iter().try_for_each(|invoice| out.row(&invoices::cells(invoice.into())))?;
        out.end_page()?;
        left = left.saturating_sub(page.invoices.len() as u64);
        if page.next_page_token.is_empty() || left == 0 {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

fn first_page(args: &List) -> ListInvoicesRequest {
    ListInvoicesRequest {
        customer_id: args.filter.scope.customer_id(),
        statuses: args.filter.statuses(),
        issued_from: args.filter.scope.issued_from(),
        issued_until: args.filter.scope.issued_until(),
        ..ListInvoicesRequest::default()
    }
}
