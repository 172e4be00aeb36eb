//! Reconcile: one job applies a batch of events, each once.
//!
//! Only an event that was applied is remembered: one that was refused is judged anew when it comes again,
//! corrected or after its invoice.

use std::collections::HashMap;

use rusqlite::{params, CachedStatement, Connection, OptionalExtension, Row};

use crate::error::{Error, Result};
use crate::model::{Ack, Event, Outcome, Payment, Status};
use crate::store::sqlite::sql;
use crate::store::sqlite::totals::{Sums, Totals};

/// Applies `events` in their order and returns an acknowledgement for each.
pub fn apply<'a>(
    conn: &'a Connection,
    totals: &'a mut Totals,
    events: &'a [Event],
) -> Result<Vec<Ack>> {
    let mut statements = Statements::prepare(conn, totals)?;
    let acks = events.iter().map(|event| statements.apply(event)).collect::<Result<_>>()?;
    statements.save_invoices()?;
    Ok(acks)
}

struct Statements<'a> {
    find_event: CachedStatement<'a>,
    find_invoice: CachedStatement<'a>,
    pay_invoice: CachedStatement<'a>,
    insert_event: CachedStatement<'a>,
    /// The invoices that the job has found. What is paid of them is saved once, at its end.
    found: HashMap<&'a str, Invoice>,
    conn: &'a Connection,
    totals: &'a mut Totals,
}

/// What a payment finds.
struct Invoice {
    sequence: i64,
    customer_id: String,
    total_amount_cents: i64,
    paid_cents: i64,
    currency: String,
    status: i32,
    /// Whether a payment of this job is in it.
    is_paid: bool,
}

/// A payment that is to be applied, and is in the totals.
struct Due {
    /// What is paid of the invoice, with it.
    paid_cents: i64,
    status: Status,
    outcome: Outcome,
}

/// Why a payment is not applied.
struct Refusal(Outcome, String);

fn paid(cents: i64) -> Sums {
    Sums { paid_cents: cents, ..Sums::default() }
}

impl<'a> Statements<'a> {
    fn prepare(conn: &'a Connection, totals: &'a mut Totals) -> Result<Statements<'a>> {
        Ok(Statements {
            find_event: conn.prepare_cached(sql::FIND_EVENT)?,
            find_invoice: conn.prepare_cached(sql::FIND_INVOICE)?,
            pay_invoice: conn.prepare_cached(sql::PAY_INVOICE)?,
            insert_event: conn.prepare_cached(sql::INSERT_EVENT)?,
            found: HashMap::new(),
            conn,
            totals,
        })
    }

    fn apply(&mut self, event: &'a Event) -> Result<Ack> {
        let event_id = &event.event_id;
        let payment = match &event.payment {
            Ok(payment) => payment,
            Err(violation) => {
                let why = format!("{}: {}", violation.field, violation.description);
                return Ok(refused(event_id, None, Refusal(Outcome::Rejected, why)));
            }
        };
        let invoice_id = payment.invoice_id.as_str();
        let mut invoice = match self.found.remove(invoice_id) {
            Some(invoice) => Some(invoice),
            None => self.find(invoice_id)?,
        };
        let ack = self.apply_to(invoice.as_mut(), event_id, payment)?;
        self.found.extend(invoice.map(|invoice| (invoice_id, invoice)));
        Ok(ack)
    }

    fn apply_to(
        &mut self,
        mut invoice: Option<&mut Invoice>,
        event_id: &str,
        payment: &Payment,
    ) -> Result<Ack> {
        let refusal = match &mut invoice {
            None => {
                let why = format!("there is no invoice {:?}", payment.invoice_id);
                Refusal(Outcome::UnknownInvoice, why)
            }
            Some(invoice) => match self.judge(payment, invoice)? {
                Ok(due) => return self.pay(event_id, payment, invoice, due),
                Err(refusal) => refusal,
            },
        };
        // It may have been applied before the invoice was withdrawn.
        let first = self.first(event_id, payment, invoice.as_deref())?;
        Ok(first.unwrap_or_else(|| refused(event_id, invoice.as_deref(), refusal)))
    }

    fn find(&mut self, invoice_id: &str) -> Result<Option<Invoice>> {
        let invoice = |row: &Row<'_>| {
            Ok(Invoice {
                sequence: row.get(0)?,
                customer_id: row.get(1)?,
                total_amount_cents: row.get(2)?,
                paid_cents: row.get(3)?,
                currency: row.get(4)?,
                status: row.get(5)?,
                is_paid: false,
            })
        };
        Ok(self.find_invoice.query_row([invoice_id], invoice).optional()?)
    }

    /// What becomes of the payment, if it is new. If it is due, it is in the totals.
    fn judge(
        &mut self,
        payment: &Payment,
        invoice: &Invoice,
    ) -> Result<std::result::Result<Due, Refusal>> {
        if invoice.status == Status::Void as i32 {
            return Ok(Err(Refusal(Outcome::InvoiceVoid, "the invoice is void".to_owned())));
        }
        if invoice.currency != payment.currency {
            let why = format!("the invoice is in {}", invoice.currency);
            return Ok(Err(Refusal(Outcome::CurrencyMismatch, why)));
        }
        let overflows =
            || Refusal(Outcome::Rejected, "amount_cents: a sum would leave 64 bits".to_owned());
        let Some(paid_cents) = invoice.paid_cents.checked_add(payment.amount_cents) else {
            return Ok(Err(overflows()));
        };
        if !self.add(payment.amount_cents, invoice)? {
            return Ok(Err(overflows()));
        }
        let status = Status::of(invoice.total_amount_cents, paid_cents);
        let outcome = match status {
            Status::PartiallyPaid => Outcome::Partial,
            Status::Overpaid => Outcome::Overpaid,
            _ => Outcome::Settled,
        };
        Ok(Ok(Due { paid_cents, status, outcome }))
    }

    /// Adds a payment to the totals; false, with nothing changed, where a sum would overflow.
    fn add(&mut self, cents: i64, invoice: &Invoice) -> Result<bool> {
        self.totals.add(self.conn, &invoice.customer_id, &invoice.currency, paid(cents))
    }

    /// Applies a payment that is due, unless its event is known.
    fn pay(
        &mut self,
        event_id: &str,
        payment: &Payment,
        invoice: &mut Invoice,
        due: Due,
    ) -> Result<Ack> {
        let ack = Ack {
            event_id: event_id.to_owned(),
            outcome: due.outcome as i32,
            invoice_status: due.status as i32,
            outstanding_cents: invoice.total_amount_cents - due.paid_cents,
            duplicate: false,
            message: String::new(),
        };
        // That the event is new turns out here, where it costs no look of its own.
        if self.remember(payment, &ack)? {
            (invoice.paid_cents, invoice.status) = (due.paid_cents, due.status as i32);
            invoice.is_paid = true;
            return Ok(ack);
        }
        if !self.add(-payment.amount_cents, invoice)? {
            return Err(Error::Internal("a payment cannot be taken back".to_owned()));
        }
        let gone = || Error::Internal(format!("the event {event_id:?} is known and gone"));
        self.first(event_id, payment, Some(invoice))?.ok_or_else(gone)
    }

    /// Writes what is paid of the invoices, in the order in which they lie.
    fn save_invoices(&mut self) -> Result<()> {
        let mut paid: Vec<_> = self.found.drain().map(|(_, i)| i).filter(|i| i.is_paid).collect();
        paid.sort_unstable_by_key(|invoice| invoice.sequence);
        for Invoice { paid_cents, status, sequence, .. } in paid {
            self.pay_invoice.execute(params![paid_cents, status, sequence])?;
        }
        Ok(())
    }

    /// Whether the event is new; if it is, it is kept with its outcome.
    fn remember(&mut self, payment: &Payment, ack: &Ack) -> Result<bool> {
        let inserted = self.insert_event.execute(params![
            ack.event_id,
            payment.invoice_id,
            payment.amount_cents,
            payment.currency,
            payment.received_at.seconds,
            payment.received_at.nanos,
            payment.reference,
            ack.outcome,
            ack.invoice_status,
            ack.outstanding_cents,
        ])?;
        Ok(inserted == 1)
    }

    /// The answer to an event whose id was applied before: its first outcome, or that the id is that of
    /// another payment. `None` where it was not.
    fn first(
        &mut self,
        event_id: &str,
        payment: &Payment,
        invoice: Option<&Invoice>,
    ) -> Result<Option<Ack>> {
        let answer = |row: &Row<'_>| {
            let (invoice_id, cents, currency): (String, i64, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let content = (&payment.invoice_id, payment.amount_cents, &payment.currency);
            if content != (&invoice_id, cents, &currency) {
                let why = format!(
                    "event_id was used for another payment: {cents} {currency} of {invoice_id:?}"
                );
                return Ok(refused(event_id, invoice, Refusal(Outcome::EventIdReused, why)));
            }
            Ok(Ack {
                event_id: event_id.to_owned(),
                outcome: row.get(3)?,
                invoice_status: row.get(4)?,
                outstanding_cents: row.get(5)?,
                duplicate: true,
                message: String::new(),
            })
        };
        Ok(self.find_event.query_row([event_id], answer).optional()?)
    }
}

/// The acknowledgement of an event that changes nothing, with the invoice as it is.
fn refused(event_id: &str, invoice: Option<&Invoice>, Refusal(outcome, message): Refusal) -> Ack {
    Ack {
        event_id: event_id.to_owned(),
        outcome: outcome as i32,
        invoice_status: invoice.map_or(0, |invoice| invoice.status),
        outstanding_cents: invoice
            .map_or(0, |invoice| invoice.total_amount_cents - invoice.paid_cents),
        duplicate: false,
        message,
    }
}
