//! `billstream export`: every invoice that matches, across lost connections.

use clap::Args;
use futures::StreamExt;
use grpcio::{CallOption, ClientSStreamReceiver};

use billstream::bridge::{self, Receiver};
use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, Invoice, Summary, SummaryRequest};

use super::connection::Connection;
use super::failure::{enough, Failure, Result};
use super::filter::Filter;
use super::interrupt;
use super::invoices::{ColumnArgs, InvoiceWriter};
use super::output::{Format, FormatArgs};
use super::progress::Progress;
use super::retry::Retry;

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
    /// Many invoices a message: the same output, faster
    #[arg(long)]
    batched: bool,
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Messages that are received ahead of the printing: some hundreds of kilobytes of either kind, from a server
/// with its default configuration.
const ROWS_AHEAD: usize = 1024;
const BATCHES_AHEAD: usize = 4;

/// Rows between two moves of the progress bar.
const ROWS_A_STEP: u64 = 1024;

pub fn run(args: &Export) -> Result<()> {
    let mut run = Run {
        client: args.connection.client(),
        batched: args.batched,
        request: request(args),
        last_sequence: 0,
        out: InvoiceWriter::new(args.format.or(Format::Csv), &args.columns)?,
        printed: 0,
        progress: Progress::rows(None),
        retry: args.connection.retry(),
    };
    interrupt::watch()?;
    let result = run.run(args);
    // Also the rows before a failure, which is about those after them.
    let result = run.out.flush().and(result);
    enough(result.map_err(|failure| failure.or_go_on(|| run.go_on())))
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

/// One export, in as many calls as it takes.
struct Run {
    client: Stub,
    batched: bool,
    /// What is still to come: after each invoice the cursor is set to it.
    request: ExportRequest,
    /// The end of the set. A later call would have newer invoices too, so the set is cut here.
    last_sequence: i64,
    out: InvoiceWriter,
    printed: u64,
    progress: Progress,
    retry: Retry,
}

impl Run {
    fn run(&mut self, args: &Export) -> Result<()> {
        let summary = self.summary()?;
        self.last_sequence = summary.last_sequence;
        if args.filter.is_all() && args.after_sequence == 0 {
            let all = summary.invoice_count as u64;
            let asked_for = if args.max_rows > 0 { args.max_rows as u64 } else { all };
            self.progress = Progress::rows(Some(all.min(asked_for)));
        }
        loop {
            match self.export() {
                Err(Failure::Rpc(status)) => {
                    // Whoever reads along shall not wait for rows that are here already.
                    self.out.flush()?;
                    self.retry.wait(status, &self.progress)?;
                }
                done => return done,
            }
        }
    }

    fn summary(&mut self) -> Result<Summary> {
        let call = || self.client.get_summary(&SummaryRequest::default(), CallOption::default());
        self.retry.unary(&self.progress, call)
    }

    fn go_on(&self) -> String {
        let (printed, cursor, left) =
            (self.printed, self.request.after_sequence, self.request.max_rows);
        let left = if left > 0 { format!(" --max-rows {left}") } else { String::new() };
        format!("{printed} rows are printed; go on with --after-sequence {cursor}{left}")
    }

    /// Prints what is still to come.
    fn export(&mut self) -> Result<()> {
        // Only a lost end of a stream can leave nothing to ask for.
        if self.is_complete() {
            return Ok(());
        }
        if self.batched {
            let stream =
                self.client.export_invoice_batches(&self.request, CallOption::default())?;
            let batches = self.receive(stream, BATCHES_AHEAD);
            self.print(batches, |batch| batch.invoices)
        } else {
            let stream = self.client.export_invoices(&self.request, CallOption::default())?;
            let rows = self.receive(stream, ROWS_AHEAD);
            self.print(rows, Some)
        }
    }

    /// Has the connection's thread receive while this one prints: to wait for each message here would
    /// take longer than the server does. When the receiver is dropped, the call is cancelled.
    fn receive<M: Send + 'static>(
        &self,
        mut stream: ClientSStreamReceiver<M>,
        ahead: usize,
    ) -> Receiver<grpcio::Result<M>> {
        let (queue, received) = bridge::bounded(ahead);
        self.client.spawn(async move {
            while let Some(message) = stream.next().await {
                if queue.send(message).await.is_err() {
                    return;
                }
            }
        });
        received
    }

    fn print<M, I: IntoIterator<Item = Invoice>>(
        &mut self,
        messages: Receiver<grpcio::Result<M>>,
        invoices: impl Fn(M) -> I,
    ) -> Result<()> {
        while let Some(message) = interrupt::recv(&messages)? {
            for invoice in invoices(message?) {
                if invoice.sequence > self.last_sequence {
                    return Ok(());
                }
                self.print_one(&invoice)?;
            }
            self.retry.progressed();
        }
        Ok(())
    }

    fn print_one(&mut self, invoice: &Invoice) -> Result<()> {
        self.out.write(invoice)?;
        self.request.after_sequence = invoice.sequence;
        self.printed += 1;
        if self.request.max_rows > 0 {
            self.request.max_rows -= 1;
            if self.request.max_rows == 0 {
                // 0 would ask for all: there is nothing more to ask for.
                self.request.after_sequence = self.last_sequence;
            }
        }
        if self.printed.is_multiple_of(ROWS_A_STEP) {
            self.progress.set(self.printed);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.request.after_sequence >= self.last_sequence
    }
}
