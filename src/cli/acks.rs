//! Acknowledgements on stdout, for `reconcile`.

use std::io::{BufWriter, Stdout};

use protobuf::Enum;

use billstream::client;
use billstream::proto::report::{InvoiceStatus, ReconcileAck, ReconcileOutcome};

use super::failure::{Failure, Result};
use super::output::{stdout, Cell, Format, RowWriter};
use super::progress::Progress;
use super::values::{outcome_name, quoted, status_name};

const COLUMNS: [&str; 6] =
    ["event_id", "outcome", "invoice_status", "outstanding_cents", "duplicate", "message"];

const OUTCOMES: &[ReconcileOutcome] = ReconcileOutcome::VALUES;

/// Widths of the columns of a table, whose rows are printed as they come.
fn widths() -> [usize; COLUMNS.len()] {
    const UUID: usize = 36;
    let outcomes = OUTCOMES.iter().map(|&outcome| outcome_name(outcome).len());
    let statuses = InvoiceStatus::VALUES.iter().map(|&status| status_name(status).len());
    [UUID, outcomes.max().unwrap_or(0), statuses.max().unwrap_or(0), 0, 0, 0]
}

/// What was acknowledged, printed and counted.
pub struct Acks {
    rows: RowWriter<BufWriter<Stdout>>,
    /// Why they are printed no more. The payments go on: stopping half way through a file would leave books
    /// that depend on how much a reader happened to take.
    stdout_failure: Option<Failure>,
    /// How many had each outcome, by its number.
    counts: [u64; OUTCOMES.len()],
    duplicates: u64,
    last_event: String,
    progress: Progress,
}

impl Acks {
    pub fn new(format: Format, progress: Progress) -> Result<Acks> {
        let mut acks = Acks {
            rows: RowWriter::new(format, &COLUMNS, stdout())?,
            stdout_failure: None,
            counts: [0; OUTCOMES.len()],
            duplicates: 0,
            last_event: String::new(),
            progress,
        };
        acks.output(|rows| {
            rows.set_widths(&widths())?;
            rows.end_page()
        });
        Ok(acks)
    }

    /// Prints what comes until the stream is over.
    pub fn print_all(
        &mut self,
        received: impl IntoIterator<Item = client::Result<Vec<ReconcileAck>>>,
    ) -> Result<()> {
        for acks in received {
            acks?.iter().for_each(|ack| self.print(ack));
            // Those that came together go out together.
            self.output(RowWriter::flush);
            self.progress.set(self.total());
        }
        Ok(())
    }

    fn print(&mut self, ack: &ReconcileAck) {
        let outcome = ack.outcome.enum_value_or(ReconcileOutcome::RECONCILE_OUTCOME_UNSPECIFIED);
        let status = ack.invoice_status.enum_value_or(InvoiceStatus::INVOICE_STATUS_UNSPECIFIED);
        self.counts[outcome.value() as usize] += 1;
        self.duplicates += u64::from(ack.duplicate);
        self.last_event.clone_from(&ack.event_id);
        self.output(|rows| {
            rows.row(&[
                Cell::Text(&ack.event_id),
                Cell::Text(outcome_name(outcome)),
                Cell::Text(status_name(status)),
                Cell::Int(ack.outstanding_cents),
                Cell::Bool(ack.duplicate),
                Cell::Text(&ack.message),
            ])
        });
    }

    /// Writes, as long as stdout takes it.
    fn output(&mut self, write: impl FnOnce(&mut RowWriter<BufWriter<Stdout>>) -> Result<()>) {
        if self.stdout_failure.is_some() {
            return;
        }
        if let Err(failure) = write(&mut self.rows) {
            self.stdout_failure = Some(failure);
            let message = "stdout takes no more acknowledgements; the payments go on without";
            self.progress.note(message);
        }
    }

    /// Prints the rest, and the counts on stderr. Fails when stdout did not take everything.
    pub fn finish(&mut self) -> Result<()> {
        self.output(RowWriter::flush);
        self.print_counts();
        self.stdout_failure.take().map_or(Ok(()), Err)
    }

    /// What to do after Ctrl-C.
    pub fn go_on(&self) -> String {
        let from = match self.total() {
            0 => "no payment is acknowledged".to_owned(),
            _ => format!("the payments up to {} are acknowledged", quoted(&self.last_event)),
        };
        format!("{from}; repeat the command with the same input, and none is applied twice")
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// One line on stderr: `3 events: 1 PARTIAL, 2 SETTLED; 1 of them known before`.
    fn print_counts(&self) {
        let total = self.total();
        let by_outcome = OUTCOMES.iter().zip(self.counts);
        let counted = by_outcome.filter(|(_, count)| *count > 0);
        let names: Vec<_> =
            counted.map(|(&outcome, count)| format!("{count} {}", outcome_name(outcome))).collect();
        let outcomes = if names.is_empty() { "none" } else { &names.join(", ") };
        let known = match self.duplicates {
            0 => String::new(),
            duplicates => format!("; {duplicates} of them known before"),
        };
        self.progress.note(&format!("{total} events: {outcomes}{known}"));
    }
}
