//! Reconcile: one job applies a batch of events, each once.

use rusqlite::{params, CachedStatement, Connection, OptionalExtension, Row};

use crate::error::{Error, Result};
use crate::model::{Ack, Event, Outcome, Payment, Status, Timestamp};
use crate::store::jobs::Work;
use crate::store::sql;
use crate::store::totals::{Sums, Totals};

/// Applies `events` in their order and returns an acknowledgement for each.
pub fn apply(work: Work<'_>, events: &[Event]) -> Result<Vec<Ack>> {
    let mut statements = Statements::prepare(work)?;
    events.iter().map(|event| statements.apply(event)).collect()
}

struct Statements<'a> {
    find_event: CachedStatement<'a>,
    find_invoice: CachedStatement<'a>,
    pay_invoice: CachedStatement<'a>,
    insert_event: CachedStatement<'a>,
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
}

/// A payment that is to be applied, and is in the totals.
struct Due {
    invoice: Invoice,
    cents: i64,
    /// What is paid of the invoice, with it.
    paid_cents: i64,
    status: i32,
}

fn paid(cents: i64) -> Sums {
    Sums { paid_cents: cents, ..Sums::default() }
}

impl<'a> Statements<'a> {
    fn prepare(Work { conn, totals, .. }: Work<'a>) -> Result<Statements<'a>> {
        Ok(Statements {
            find_event: conn.prepare_cached(sql::FIND_EVENT)?,
            find_invoice: conn.prepare_cached(sql::FIND_INVOICE)?,
            pay_invoice: conn.prepare_cached(sql::PAY_INVOICE)?,
            insert_event: conn.prepare_cached(sql::INSERT_EVENT)?,
            conn,
            totals,
        })
    }

    fn apply(&mut self, event: &Event) -> Result<Ack> {
        let mut ack = Ack {
            event_id: event.event_id.clone(),
            outcome: Outcome::Rejected as i32,
            invoice_status: 0,
            outstanding_cents: 0,
            duplicate: false,
            message: String::new(),
        };
        let due = match &event.payment {
            Err(violation) => {
                ack.message = format!("{}: {}", violation.field, violation.description);
                if violation.field == "event_id" {
                    // Nothing to remember it by.
                    return Ok(ack);
                }
                None
            }
            Ok(payment) => self.weigh(payment, &mut ack)?,
        };
        // That the event is new turns out here, where it costs no look of its own.
        if !self.remember(event, &ack)? {
            if let Some(due) = due {
                self.take_back(&due)?;
            }
            return self.first(ack);
        }
        if let Some(Due { invoice, paid_cents, status, .. }) = due {
            self.pay_invoice.execute(params![paid_cents, status, invoice.sequence])?;
        }
        Ok(ack)
    }

    /// The first outcome of an event that is known.
    fn first(&mut self, ack: Ack) -> Result<Ack> {
        let event_id = ack.event_id;
        let first = self.find_event.query_row([&event_id], |row: &Row<'_>| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        let (outcome, invoice_status, outstanding_cents, message) = first;
        Ok(Ack { event_id, outcome, invoice_status, outstanding_cents, duplicate: true, message })
    }

    /// Fills in what becomes of the payment, and adds it to the totals if it is to be applied.
    fn weigh(&mut self, payment: &Payment, ack: &mut Ack) -> Result<Option<Due>> {
        let Some(invoice) = self.find(&payment.invoice_id)? else {
            ack.outcome = Outcome::UnknownInvoice as i32;
            ack.message = format!("there is no invoice {:?}", payment.invoice_id);
            return Ok(None);
        };
        ack.invoice_status = invoice.status;
        ack.outstanding_cents = invoice.total_amount_cents - invoice.paid_cents;
        if invoice.status == Status::Void as i32 {
            ack.outcome = Outcome::InvoiceVoid as i32;
            ack.message = "the invoice is void".to_owned();
            return Ok(None);
        }
        if invoice.currency != payment.currency {
            ack.outcome = Outcome::CurrencyMismatch as i32;
            ack.message = format!("the invoice is in {}", invoice.currency);
            return Ok(None);
        }
        let due = self.add(payment.amount_cents, invoice, ack)?;
        if due.is_none() {
            ack.message = "amount_cents: a sum would leave 64 bits".to_owned();
        }
        Ok(due)
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
            })
        };
        Ok(self.find_invoice.query_row([invoice_id], invoice).optional()?)
    }

    /// Adds the payment to the totals; `None`, with nothing changed, when a sum would overflow.
    fn add(&mut self, cents: i64, invoice: Invoice, ack: &mut Ack) -> Result<Option<Due>> {
        let Some(paid_cents) = invoice.paid_cents.checked_add(cents) else { return Ok(None) };
        if !self.totals.add(self.conn, &invoice.customer_id, &invoice.currency, paid(cents))? {
            return Ok(None);
        }
        let status = Status::of(invoice.total_amount_cents, paid_cents);
        ack.outcome = match status {
            Status::PartiallyPaid => Outcome::Partial,
            Status::Overpaid => Outcome::Overpaid,
            _ => Outcome::Settled,
        } as i32;
        ack.invoice_status = status as i32;
        ack.outstanding_cents = invoice.total_amount_cents - paid_cents;
        Ok(Some(Due { invoice, cents, paid_cents, status: status as i32 }))
    }

    /// Takes a payment out of the totals again.
    fn take_back(&mut self, Due { invoice, cents, .. }: &Due) -> Result<()> {
        match self.totals.add(self.conn, &invoice.customer_id, &invoice.currency, paid(-cents))? {
            true => Ok(()),
            false => Err(Error::Internal("a payment cannot be taken back".to_owned())),
        }
    }

    /// Whether the event is new; if it is, it is kept with its outcome.
    fn remember(&mut self, event: &Event, ack: &Ack) -> Result<bool> {
        let nothing = Payment {
            invoice_id: String::new(),
            amount_cents: 0,
            currency: String::new(),
            received_at: Timestamp { seconds: 0, nanos: 0 },
            reference: String::new(),
        };
        let payment = event.payment.as_ref().unwrap_or(&nothing);
        let inserted = self.insert_event.execute(params![
            event.event_id,
            payment.invoice_id,
            payment.amount_cents,
            payment.currency,
            payment.received_at.seconds,
            payment.received_at.nanos,
            payment.reference,
            ack.outcome,
            ack.invoice_status,
            ack.outstanding_cents,
            ack.message,
        ])?;
        Ok(inserted == 1)
    }
}
