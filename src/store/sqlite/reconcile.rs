//! Reconcile: one job applies a batch of events, each once.
//!
//! Only an event that was applied is remembered: one that was refused is judged anew when it comes again,
//! corrected or after its invoice.
//!
//! What a job needs to know is read by one statement for all its events, and is written at its end, each in the
//! order in which it lies: a statement for each event costs more to begin and to end than it does between.

use std::borrow::Cow;
use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{params, Connection, Row, Statement, ToSql};

use crate::error::Result;
use crate::model::{Ack, Entry, Event, Kind, Outcome, Status, Sums};
use crate::store::sqlite::sql;
use crate::store::sqlite::totals::{Place, Totals};

/// Applies `events` in their order and returns an acknowledgement for each.
pub fn apply(conn: &Connection, totals: &mut Totals, events: &[Event]) -> Result<Vec<Ack>> {
    let event_ids = Distinct::of(events.iter().map(|event| event.event_id.as_str()));
    let invoice_ids = Distinct::of(events.iter().map(invoice_id));
    let mut job = Job {
        known: find_events(conn, &event_ids.keys)?,
        invoices: find_invoices(conn, totals, &invoice_ids.keys)?,
        last_event_sequence: totals.last_event_sequence(conn)?,
        applied: Vec::with_capacity(events.len()),
        totals,
    };
    let places = event_ids.places.iter().zip(&invoice_ids.places);
    let acks = events.iter().zip(places).map(|(event, (&id, &invoice))| match &event.entry {
        Ok(entry) => job.apply(&event.event_id, entry, (id, invoice)),
        Err(violation) => {
            let why = format!("{}: {}", violation.field, violation.description);
            refused(None, Refusal(Outcome::Rejected, why))
        }
    });
    let acks = acks.collect();
    if !job.applied.is_empty() {
        job.totals.set_last_event_sequence(job.last_event_sequence);
    }
    save_events(conn, &job.applied)?;
    save_invoices(conn, job.invoices)?;
    Ok(acks)
}

/// Empty where there is none to be found.
fn invoice_id(event: &Event) -> &str {
    event.entry.as_ref().map_or("", |entry| &entry.invoice_id)
}

/// The distinct ones of some keys, in their order, and the place that each key has among them.
struct Distinct<'a> {
    keys: Vec<&'a str>,
    places: Vec<usize>,
}

impl<'a> Distinct<'a> {
    fn of(keys: impl Iterator<Item = &'a str>) -> Distinct<'a> {
        let mut sorted: Vec<_> = keys.enumerate().map(|(i, key)| (key, i)).collect();
        sorted.sort_unstable();
        let mut distinct =
            Distinct { keys: Vec::with_capacity(sorted.len()), places: vec![0; sorted.len()] };
        for (key, i) in sorted {
            if distinct.keys.last() != Some(&key) {
                distinct.keys.push(key);
            }
            distinct.places[i] = distinct.keys.len() - 1;
        }
        distinct
    }
}

struct Job<'a> {
    /// What was applied under each event id.
    known: Vec<Option<Known<'a>>>,
    /// What there is under each invoice id.
    invoices: Vec<Option<Invoice>>,
    /// What was applied, in that order.
    applied: Vec<Applied<'a>>,
    /// That of the last one.
    last_event_sequence: i64,
    totals: &'a mut Totals,
}

/// An event that was applied, with its outcome.
struct Known<'a> {
    kind: i32,
    invoice_id: Cow<'a, str>,
    amount_cents: i64,
    currency: Cow<'a, str>,
    outcome: i32,
    invoice_status: i32,
    outstanding_cents: i64,
}

/// A row of the ledger to be written.
struct Applied<'a> {
    event_sequence: i64,
    previous_event_sequence: i64,
    event_id: &'a str,
    entry: &'a Entry,
    outcome: i32,
    invoice_status: i32,
    outstanding_cents: i64,
}

/// What an event finds.
struct Invoice {
    sequence: i64,
    total_amount_cents: i64,
    paid_cents: i64,
    status: i32,
    last_event_sequence: i64,
    /// The totals that it is part of.
    place: Place,
    /// Whether an event of this job changed it.
    is_changed: bool,
}

impl Invoice {
    fn is_void(&self) -> bool {
        self.status == Status::Void as i32
    }

    fn outstanding_cents(&self) -> i64 {
        if self.is_void() {
            0
        } else {
            self.total_amount_cents - self.paid_cents
        }
    }
}

/// Why an event is not applied.
struct Refusal(Outcome, String);

impl<'a> Job<'a> {
    /// Applies the event whose id and invoice have these places, unless it is known.
    fn apply(&mut self, event_id: &'a str, entry: &'a Entry, (id, invoice): (usize, usize)) -> Ack {
        let invoice = self.invoices[invoice].as_mut();
        // It may have been applied before the invoice was withdrawn.
        if let Some(known) = &self.known[id] {
            return first(known, entry, invoice.as_deref());
        }
        let Some(invoice) = invoice else {
            let why = format!("there is no invoice {:?}", entry.invoice_id);
            return refused(None, Refusal(Outcome::UnknownInvoice, why));
        };
        match change(self.totals, entry, invoice) {
            Ok(ack) => {
                self.last_event_sequence += 1;
                let Ack { outcome, invoice_status, outstanding_cents, .. } = ack;
                self.known[id] = Some(Known {
                    kind: entry.kind as i32,
                    invoice_id: Cow::Borrowed(&entry.invoice_id),
                    amount_cents: entry.amount_cents,
                    currency: Cow::Borrowed(&entry.currency),
                    outcome,
                    invoice_status,
                    outstanding_cents,
                });
                self.applied.push(Applied {
                    event_sequence: self.last_event_sequence,
                    previous_event_sequence: invoice.last_event_sequence,
                    event_id,
                    entry,
                    outcome,
                    invoice_status,
                    outstanding_cents,
                });
                invoice.last_event_sequence = self.last_event_sequence;
                ack
            }
            Err(refusal) => refused(Some(invoice), refusal),
        }
    }
}

/// Changes the invoice as the event says, and the totals with it, if it may.
fn change(
    totals: &mut Totals,
    entry: &Entry,
    invoice: &mut Invoice,
) -> std::result::Result<Ack, Refusal> {
    if invoice.is_void() {
        return Err(Refusal(Outcome::InvoiceVoid, "the invoice is void".to_owned()));
    }
    let currency = totals.currency(invoice.place);
    if currency != entry.currency {
        return Err(Refusal(Outcome::CurrencyMismatch, format!("the invoice is in {currency}")));
    }
    let total_cents = invoice.total_amount_cents;
    let (change_cents, (paid_cents, status)) = match entry.kind {
        Kind::Payment => (entry.amount_cents, pay(invoice, entry.amount_cents)?),
        Kind::Refund => (-entry.amount_cents, pay(invoice, -entry.amount_cents)?),
        Kind::Void => (0, withdraw(invoice, entry.amount_cents)?),
    };
    let more = Sums {
        paid_cents: change_cents,
        credit_note_paid_cents: if total_cents < 0 { change_cents } else { 0 },
        void_count: (status == Status::Void).into(),
        void_cents: if status == Status::Void { total_cents } else { 0 },
        ..Sums::default()
    };
    if !totals.add_to(invoice.place, more) {
        return Err(overflow());
    }
    (invoice.paid_cents, invoice.status, invoice.is_changed) = (paid_cents, status as i32, true);
    let outcome = match status {
        Status::Open | Status::PartiallyPaid => Outcome::Partial,
        Status::Paid => Outcome::Settled,
        Status::Overpaid => Outcome::Overpaid,
        Status::Void => Outcome::Voided,
    };
    Ok(Ack {
        outcome: outcome as i32,
        invoice_status: invoice.status,
        outstanding_cents: invoice.outstanding_cents(),
        duplicate: false,
        message: String::new(),
    })
}

/// What is paid after a payment, or, with an amount under 0, after a refund; and the status.
fn pay(invoice: &Invoice, change_cents: i64) -> std::result::Result<(i64, Status), Refusal> {
    let (total_cents, before_cents) = (invoice.total_amount_cents, invoice.paid_cents);
    let paid_cents = before_cents.checked_add(change_cents).ok_or_else(overflow)?;
    let is_credit_note = total_cents < 0;
    let is_beyond = if is_credit_note { paid_cents > 0 } else { paid_cents < 0 };
    if is_beyond {
        let was = if is_credit_note { "refunded of the credit note" } else { "paid" };
        let why = format!("more than the {} that are {was}", before_cents.unsigned_abs());
        return Err(Refusal(Outcome::ExceedsPaid, why));
    }
    Ok((paid_cents, Status::of(total_cents, paid_cents)))
}

/// What is paid of an invoice that may be withdrawn, and its status then. Its amount is compared where one is given.
fn withdraw(invoice: &Invoice, amount_cents: i64) -> std::result::Result<(i64, Status), Refusal> {
    let total_cents = invoice.total_amount_cents.unsigned_abs();
    if amount_cents != 0 && amount_cents.unsigned_abs() != total_cents {
        let why = format!("amount_cents: {amount_cents} is not the invoice's, {total_cents}");
        return Err(Refusal(Outcome::Rejected, why));
    }
    match invoice.paid_cents {
        0 => Ok((0, Status::Void)),
        paid_cents => {
            let why = format!("what is paid of it, {paid_cents}, is to be given back first");
            Err(Refusal(Outcome::HasPayments, why))
        }
    }
}

fn overflow() -> Refusal {
    Refusal(Outcome::Rejected, "amount_cents: a sum would leave 64 bits".to_owned())
}

/// The answer to an event whose id was applied before: its first outcome, or that the id is that of
/// another event.
fn first(known: &Known<'_>, entry: &Entry, invoice: Option<&Invoice>) -> Ack {
    let Known { kind, invoice_id, amount_cents, currency, .. } = known;
    let content = (entry.kind as i32, entry.amount_cents, &*entry.currency, &*entry.invoice_id);
    if content != (*kind, *amount_cents, currency, invoice_id) {
        let kind = match kind {
            1 => "payment",
            2 => "refund",
            _ => "void",
        };
        let why = format!(
            "event_id was used for another {kind}: {amount_cents} {currency} of {invoice_id:?}"
        );
        return refused(invoice, Refusal(Outcome::EventIdReused, why));
    }
    Ack {
        outcome: known.outcome,
        invoice_status: known.invoice_status,
        outstanding_cents: known.outstanding_cents,
        duplicate: true,
        message: String::new(),
    }
}

/// The acknowledgement of an event that changes nothing, with the invoice as it is.
fn refused(invoice: Option<&Invoice>, Refusal(outcome, message): Refusal) -> Ack {
    Ack {
        outcome: outcome as i32,
        invoice_status: invoice.map_or(0, |invoice| invoice.status),
        outstanding_cents: invoice.map_or(0, Invoice::outstanding_cents),
        duplicate: false,
        message,
    }
}

/// Runs a statement that has the keys as its parameter, and whose rows begin with the number of a key, from 1.
/// Gives what `read` makes of the row of each.
fn find<T>(
    conn: &Connection,
    statement: &str,
    keys: &[&str],
    mut read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<Option<T>>> {
    let mut found: Vec<_> = keys.iter().map(|_| None).collect();
    let keys: Vec<_> = keys.iter().map(|key| Value::Text((*key).to_owned())).collect();
    let mut statement = conn.prepare_cached(statement)?;
    let mut rows = statement.query([Rc::new(keys)])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        found[number as usize - 1] = Some(read(row)?);
    }
    Ok(found)
}

fn find_events<'a>(conn: &Connection, event_ids: &[&str]) -> Result<Vec<Option<Known<'a>>>> {
    find(conn, sql::FIND_EVENTS, event_ids, |row| {
        Ok(Known {
            kind: row.get(7)?,
            invoice_id: Cow::Owned(row.get(1)?),
            amount_cents: row.get(2)?,
            currency: Cow::Owned(row.get(3)?),
            outcome: row.get(4)?,
            invoice_status: row.get(5)?,
            outstanding_cents: row.get(6)?,
        })
    })
}

fn find_invoices(
    conn: &Connection,
    totals: &mut Totals,
    invoice_ids: &[&str],
) -> Result<Vec<Option<Invoice>>> {
    // Before the places of the totals are taken, which end with it.
    totals.limit(conn)?;
    find(conn, sql::FIND_INVOICES, invoice_ids, |row| {
        let text = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?);
        Ok(Invoice {
            sequence: row.get(1)?,
            total_amount_cents: row.get(2)?,
            paid_cents: row.get(3)?,
            status: row.get(4)?,
            last_event_sequence: row.get(5)?,
            place: totals.place(conn, text(6)?, text(7)?)?,
            is_changed: false,
        })
    })
}

/// Writes what was applied, at the end of the table.
fn save_events(conn: &Connection, applied: &[Applied<'_>]) -> Result<()> {
    let mut chunks = applied.chunks_exact(sql::EVENTS_AT_ONCE);
    let mut insert = conn.prepare_cached(&sql::INSERT_EVENTS)?;
    for events in &mut chunks {
        for (row, event) in events.iter().enumerate() {
            bind_event(&mut insert, row, event)?;
        }
        insert.raw_execute()?;
    }
    let mut insert = conn.prepare_cached(sql::INSERT_EVENT)?;
    for event in chunks.remainder() {
        bind_event(&mut insert, 0, event)?;
        insert.raw_execute()?;
    }
    Ok(())
}

/// Binds the parameters of one row of an insert.
fn bind_event(insert: &mut Statement<'_>, row: usize, event: &Applied<'_>) -> Result<()> {
    let entry = event.entry;
    let columns: [&dyn ToSql; 13] = [
        &event.event_sequence,
        &event.previous_event_sequence,
        &event.event_id,
        &entry.invoice_id,
        &(entry.kind as i32),
        &entry.amount_cents,
        &entry.currency,
        &entry.received_at.seconds,
        &entry.received_at.nanos,
        &entry.reference,
        &event.outcome,
        &event.invoice_status,
        &event.outstanding_cents,
    ];
    for (i, column) in columns.into_iter().enumerate() {
        insert.raw_bind_parameter(row * columns.len() + i + 1, column)?;
    }
    Ok(())
}

/// Writes the invoices that changed, in the order in which they lie.
fn save_invoices(conn: &Connection, invoices: Vec<Option<Invoice>>) -> Result<()> {
    let mut pay_invoice = conn.prepare_cached(sql::PAY_INVOICE)?;
    let mut changed: Vec<_> = invoices.into_iter().flatten().filter(|i| i.is_changed).collect();
    changed.sort_unstable_by_key(|invoice| invoice.sequence);
    for Invoice { paid_cents, status, last_event_sequence, sequence, .. } in changed {
        pay_invoice.execute(params![paid_cents, status, last_event_sequence, sequence])?;
    }
    Ok(())
}
