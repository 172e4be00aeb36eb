//! The statements of Reconcile.

use rusqlite::{params, Connection, OptionalExtension};
use tonic::Status;

use crate::proto::{InvoiceStatus, ReconcileAck, ReconcileEvent, ReconcileOutcome};
use crate::rules;
use crate::store::Result;
use crate::totals::{is_overflow, Totals};

/// Applies one event, in the transaction or savepoint that is open.
pub fn apply(
    connection: &Connection,
    event: &ReconcileEvent,
    totals: Totals,
) -> Result<ReconcileAck> {
    let mut ack = ReconcileAck { event_id: event.event_id.clone(), ..Default::default() };
    if let Some(message) = rules::event(event) {
        refuse(&mut ack, ReconcileOutcome::Rejected, &message);
        return Ok(ack);
    }
    // With triggers only the payment itself shows that a sum overflows, so it comes before the event is
    // remembered, and a look before it. Without them the event's own insert tells that it is known.
    if totals == Totals::Triggers {
        if let Some(known) = known(connection, event)? {
            return Ok(known);
        }
    }
    let due = pay(connection, event, totals, &mut ack)?;
    if !is_applied(&ack) {
        return Ok(known(connection, event)?.unwrap_or(ack));
    }
    if remember(connection, event, &ack)? {
        if let Some(due) = due {
            due.set_paid(connection)?;
        }
        return Ok(ack);
    }
    if let Some(Due { customer, .. }) = due {
        totals.add(connection, &customer, &event.currency, [0, 0, -event.amount_cents])?;
    }
    let known = known(connection, event)?;
    known.ok_or_else(|| Status::internal("a known event is gone").into())
}

/// Only such an event is remembered.
fn is_applied(ack: &ReconcileAck) -> bool {
    use ReconcileOutcome::{Overpaid, Partial, Settled};
    [Partial, Settled, Overpaid].map(|outcome| outcome as i32).contains(&ack.outcome)
}

/// A payment that is in the totals, and not yet in its invoice.
struct Due {
    sequence: i64,
    customer: String,
    status: i32,
    paid: i64,
}

impl Due {
    fn set_paid(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE invoices SET status = ?2, paid_cents = ?3 WHERE sequence = ?1")?
            .execute(params![self.sequence, self.status, self.paid])
            .map(drop)
    }
}

/// What an event is answered whose id was applied before: its first acknowledgement, or that it is another.
fn known(
    connection: &Connection,
    event: &ReconcileEvent,
) -> rusqlite::Result<Option<ReconcileAck>> {
    let sql = "SELECT event_id, outcome, invoice_status, outstanding_cents, \
               invoice_id = ?2 AND amount_cents = ?3 AND currency = ?4 \
               FROM reconcile_events WHERE event_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let content = params![event.event_id, event.invoice_id, event.amount_cents, event.currency];
    let ack = statement.query_row(content, |row| {
        let mut ack = ReconcileAck { event_id: row.get(0)?, ..Default::default() };
        if !row.get::<_, bool>(4)? {
            let message = "the event_id was used for another payment";
            refuse(&mut ack, ReconcileOutcome::EventIdReused, message);
            return Ok(ack);
        }
        ack.outcome = row.get(1)?;
        (ack.invoice_status, ack.outstanding_cents) = (row.get(2)?, row.get(3)?);
        ack.duplicate = true;
        Ok(ack)
    });
    ack.optional()
}

/// Whether the event is new; then it is kept with its acknowledgement.
fn remember(
    connection: &Connection,
    event: &ReconcileEvent,
    ack: &ReconcileAck,
) -> rusqlite::Result<bool> {
    let received_at = event.received_at.unwrap_or_default();
    let inserted = connection
        .prepare_cached(
            "INSERT INTO reconcile_events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
             ON CONFLICT (event_id) DO NOTHING",
        )?
        .execute(params![
            event.event_id,
            event.invoice_id,
            event.amount_cents,
            event.currency,
            received_at.seconds,
            received_at.nanos,
            event.reference,
            ack.outcome,
            ack.invoice_status,
            ack.outstanding_cents,
            ack.message,
        ])?;
    Ok(inserted == 1)
}

/// Fills in the acknowledgement. Returns a payment that is still to be written into its invoice.
fn pay(
    connection: &Connection,
    event: &ReconcileEvent,
    totals: Totals,
    ack: &mut ReconcileAck,
) -> Result<Option<Due>> {
    let sql = "SELECT sequence, total_amount_cents, paid_cents, status, currency, customer_id \
               FROM invoices WHERE invoice_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([&event.invoice_id])?;
    let Some(row) = rows.next()? else {
        refuse(ack, ReconcileOutcome::UnknownInvoice, "there is no such invoice");
        return Ok(None);
    };
    let (sequence, total, paid): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    ack.invoice_status = row.get(3)?;
    ack.outstanding_cents = total - paid;
    if ack.invoice_status == InvoiceStatus::Void as i32 {
        refuse(ack, ReconcileOutcome::InvoiceVoid, "the invoice is void");
        return Ok(None);
    }
    if row.get_ref(4)?.as_bytes() != Ok(event.currency.as_bytes()) {
        refuse(ack, ReconcileOutcome::CurrencyMismatch, "the invoice has another currency");
        return Ok(None);
    }
    let customer: String = row.get(5)?;
    drop(rows);
    let Some(paid) = paid.checked_add(event.amount_cents) else {
        refuse(ack, ReconcileOutcome::Rejected, "the sum would overflow");
        return Ok(None);
    };
    let (outcome, status) = match paid.cmp(&total) {
        std::cmp::Ordering::Less => (ReconcileOutcome::Partial, InvoiceStatus::PartiallyPaid),
        std::cmp::Ordering::Equal => (ReconcileOutcome::Settled, InvoiceStatus::Paid),
        std::cmp::Ordering::Greater => (ReconcileOutcome::Overpaid, InvoiceStatus::Overpaid),
    };
    let due = Due { sequence, customer, status: status as i32, paid };
    let due = match totals {
        Totals::Triggers => match due.set_paid(connection) {
            Ok(()) => None,
            Err(error) if is_overflow(&error) => {
                refuse(ack, ReconcileOutcome::Rejected, "the sum would overflow");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        },
        Totals::AtCommit => {
            let more = [0, 0, event.amount_cents];
            if !totals.add(connection, &due.customer, &event.currency, more)? {
                refuse(ack, ReconcileOutcome::Rejected, "the sum would overflow");
                return Ok(None);
            }
            Some(due)
        }
    };
    ack.outcome = outcome as i32;
    ack.invoice_status = status as i32;
    ack.outstanding_cents = total - paid;
    Ok(due)
}

fn refuse(ack: &mut ReconcileAck, outcome: ReconcileOutcome, message: &str) {
    ack.outcome = outcome as i32;
    ack.message = message.to_owned();
}
