//! Events of the ledger as rows, for `export --events` and `show`.

use billstream::model::Timestamp;
use billstream::proto::report::{Event, EventKind, InvoiceStatus, ReconcileOutcome};

use super::failure::Result;
use super::output::Cell;
use super::values::{kind_name, outcome_name, status_name};
use super::writing::{FileFormat, RowFile, RowKind, WritingArgs};

/// Every field of an event: first those of a file that reconcile reads, in its order.
pub const COLUMNS: [&str; 12] = [
    "event_id",
    "invoice_id",
    "amount_cents",
    "currency",
    "received_at",
    "reference",
    "kind",
    "paid_change_cents",
    "outcome",
    "invoice_status",
    "outstanding_cents",
    "event_sequence",
];

pub fn cells(event: &Event) -> [Cell<'_>; COLUMNS.len()] {
    let received_at = event.received_at.as_ref();
    let received_at = received_at.map_or_else(Timestamp::default, |time| Timestamp {
        seconds: time.seconds,
        nanos: time.nanos,
    });
    let outcome = event.outcome.enum_value_or(ReconcileOutcome::RECONCILE_OUTCOME_UNSPECIFIED);
    let status = event.invoice_status.enum_value_or(InvoiceStatus::INVOICE_STATUS_UNSPECIFIED);
    [
        Cell::Text(&event.event_id),
        Cell::Text(&event.invoice_id),
        Cell::Amount(event.amount_cents, &event.currency),
        Cell::Text(&event.currency),
        Cell::Time(received_at),
        Cell::Text(&event.reference),
        Cell::Text(kind_name(event.kind.enum_value_or(EventKind::EVENT_KIND_UNSPECIFIED))),
        Cell::Amount(event.paid_change_cents, &event.currency),
        Cell::Text(outcome_name(outcome)),
        Cell::Text(status_name(status)),
        Cell::Amount(event.outstanding_cents, &event.currency),
        Cell::Int(event.event_sequence),
    ]
}

/// A file of events, or stdout.
pub fn file(args: &WritingArgs, default: FileFormat) -> Result<RowFile> {
    let none = Event::default();
    let kind = RowKind { names: &COLUMNS, of_csv: COLUMNS.len(), example: &cells(&none) };
    RowFile::create(args, default, &kind)
}
