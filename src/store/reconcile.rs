//! Reconcile: one job applies a batch of events, each once.

use rusqlite::{params, CachedStatement, OptionalExtension, Row};

use crate::error::Result;
use crate::model::{Ack, Event, Outcome, Payment, Status, Timestamp};
use crate::store::sql;
use crate::store::totals::{Addition, Totals};
use crate::store::write::Job;

/// Applies `events` in their order and returns an acknowledgement for each.
pub fn apply(job: Job<'_>, events: &[Event]) -> Result<Vec<Ack>> {
    let mut statements = Statements::prepare(job)?;
    events.iter().map(|event| statements.apply(event)).collect()
}

struct Statements<'a> {
    find_event: CachedStatement<'a>,
    find_invoice: CachedStatement<'a>,
    pay_invoice: CachedStatement<'a>,
    insert_event: CachedStatement<'a>,
    totals: Totals<'a>,
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

impl<'a> Statements<'a> {
    fn prepare(Job { conn, currencies, .. }: Job<'a>) -> Result<Statements<'a>> {
        Ok(Statements {
            find_event: conn.prepare_cached(sql::FIND_EVENT)?,
            find_invoice: conn.prepare_cached(sql::FIND_INVOICE)?,
            pay_invoice: conn.prepare_cached(sql::PAY_INVOICE)?,
            insert_event: conn.prepare_cached(sql::INSERT_EVENT)?,
            totals: Totals::prepare(conn, currencies)?,
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
        match &event.payment {
            Err(violation) if violation.field == "event_id" => {
                // Nothing to remember it by.
                ack.message = format!("event_id: {}", violation.description);
                return Ok(ack);
            }
            _ if self.find_first(&mut ack)? => return Ok(ack),
            Err(violation) => {
                ack.message = format!("{}: {}", violation.field, violation.description);
            }
            Ok(payment) => self.pay(payment, &mut ack)?,
        }
        self.remember(event, &ack)?;
        Ok(ack)
    }

    /// Fills in the first outcome of an event that is known.
    fn find_first(&mut self, ack: &mut Ack) -> Result<bool> {
        let found = self
            .find_event
            .query_row([&ack.event_id], |row: &Row<'_>| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let Some(first) = found else { return Ok(false) };
        (ack.outcome, ack.invoice_status, ack.outstanding_cents, ack.message) = first;
        ack.duplicate = true;
        Ok(true)
    }

    fn pay(&mut self, payment: &Payment, ack: &mut Ack) -> Result<()> {
        let Some(invoice) = self.find(&payment.invoice_id)? else {
            ack.outcome = Outcome::UnknownInvoice as i32;
            ack.message = format!("there is no invoice {:?}", payment.invoice_id);
            return Ok(());
        };
        ack.invoice_status = invoice.status;
        ack.outstanding_cents = invoice.total_amount_cents - invoice.paid_cents;
        if invoice.status == Status::Void as i32 {
            ack.outcome = Outcome::InvoiceVoid as i32;
            ack.message = "the invoice is void".to_owned();
        } else if invoice.currency != payment.currency {
            ack.outcome = Outcome::CurrencyMismatch as i32;
            ack.message = format!("the invoice is in {}", invoice.currency);
        } else if !self.add(payment, &invoice, ack)? {
            ack.message = "amount_cents: a sum would leave 64 bits".to_owned();
        }
        Ok(())
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

    /// Applies the payment; false, with nothing changed, when a sum would overflow.
    fn add(&mut self, payment: &Payment, invoice: &Invoice, ack: &mut Ack) -> Result<bool> {
        let Some(paid_cents) = invoice.paid_cents.checked_add(payment.amount_cents) else {
            return Ok(false);
        };
        let addition =
            Addition { invoice_count: 0, total_cents: 0, paid_cents: payment.amount_cents };
        if !self.totals.add(&invoice.customer_id, &invoice.currency, addition)? {
            return Ok(false);
        }
        let status = Status::of(invoice.total_amount_cents, paid_cents);
        self.pay_invoice.execute(params![paid_cents, status as i32, invoice.sequence])?;
        ack.outcome = match status {
            Status::PartiallyPaid => Outcome::Partial,
            Status::Overpaid => Outcome::Overpaid,
            _ => Outcome::Settled,
        } as i32;
        ack.invoice_status = status as i32;
        ack.outstanding_cents = invoice.total_amount_cents - paid_cents;
        Ok(true)
    }

    fn remember(&mut self, event: &Event, ack: &Ack) -> Result<()> {
        let nothing = Payment {
            invoice_id: String::new(),
            amount_cents: 0,
            currency: String::new(),
            received_at: Timestamp { seconds: 0, nanos: 0 },
            reference: String::new(),
        };
        let payment = event.payment.as_ref().unwrap_or(&nothing);
        self.insert_event.execute(params![
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
        Ok(())
    }
}
