//! What the proto says of invoices and events, written down once more, and simply.

use std::collections::BTreeMap;

use billstream::proto::report::{
    CreateInvoiceRequest, EventKind, InvoiceStatus, ReconcileEvent, ReconcileOutcome,
};
use EventKind::*;
use InvoiceStatus::*;
use ReconcileOutcome::*;

#[derive(Clone, Debug)]
pub struct Invoice {
    pub customer_id: String,
    pub currency: String,
    pub total: i64,
    pub paid: i64,
    pub is_void: bool,
}

impl Invoice {
    /// The table at InvoiceStatus.
    pub fn status(&self) -> InvoiceStatus {
        let (total, paid) = (self.total, self.paid);
        if self.is_void {
            assert_eq!(paid, 0);
            INVOICE_STATUS_VOID
        } else if total > 0 {
            match paid {
                ..0 => panic!("never"),
                0 => INVOICE_STATUS_OPEN,
                paid if paid < total => INVOICE_STATUS_PARTIALLY_PAID,
                paid if paid == total => INVOICE_STATUS_PAID,
                _ => INVOICE_STATUS_OVERPAID,
            }
        } else if total == 0 {
            match paid {
                ..0 => panic!("never"),
                0 => INVOICE_STATUS_PAID,
                1.. => INVOICE_STATUS_OVERPAID,
            }
        } else {
            match paid {
                1.. => panic!("never"),
                0 => INVOICE_STATUS_OPEN,
                paid if paid > total => INVOICE_STATUS_PARTIALLY_PAID,
                paid if paid == total => INVOICE_STATUS_PAID,
                _ => INVOICE_STATUS_OVERPAID,
            }
        }
    }

    pub fn outstanding(&self) -> i64 {
        if self.is_void {
            0
        } else {
            self.total - self.paid
        }
    }
}

/// An acknowledgement without its id and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub outcome: ReconcileOutcome,
    pub status: InvoiceStatus,
    pub outstanding: i64,
    pub duplicate: bool,
}

/// What makes an event the same: its invoice, kind, amount and currency.
type Content = (String, i32, i64, String);

#[derive(Default)]
pub struct Model {
    pub invoices: BTreeMap<String, Invoice>,
    /// The first acknowledgement of each event that was applied.
    applied: BTreeMap<String, (Content, Ack)>,
    /// In the order of application: the invoice, and what was added to what is paid of it.
    pub ledger: Vec<(String, i64)>,
}

impl Model {
    /// False where the id is taken.
    pub fn create(&mut self, new: &CreateInvoiceRequest) -> bool {
        let (customer_id, currency) = (new.customer_id.clone(), new.currency.clone());
        let total = new.total_amount_cents;
        let invoice = Invoice { customer_id, currency, total, paid: 0, is_void: false };
        let is_free = !self.invoices.contains_key(&new.invoice_id);
        self.invoices.entry(new.invoice_id.clone()).or_insert(invoice);
        is_free
    }

    pub fn apply(&mut self, event: &ReconcileEvent) -> Ack {
        let kind = match event.kind.value() {
            0 => EVENT_KIND_PAYMENT as i32,
            kind => kind,
        };
        let is_malformed = !(1..=3).contains(&kind)
            || event.amount_cents < if kind == EVENT_KIND_VOID as i32 { 0 } else { 1 };
        if is_malformed {
            let (outcome, status) = (RECONCILE_OUTCOME_REJECTED, INVOICE_STATUS_UNSPECIFIED);
            return Ack { outcome, status, outstanding: 0, duplicate: false };
        }
        let (invoice_id, currency) = (event.invoice_id.clone(), event.currency.clone());
        let content = (invoice_id.clone(), kind, event.amount_cents, currency);
        if let Some((known, ack)) = self.applied.get(&event.event_id) {
            if *known == content {
                return Ack { duplicate: true, ..ack.clone() };
            }
            return self.as_it_is(&invoice_id, RECONCILE_OUTCOME_EVENT_ID_REUSED);
        }
        match self.change(event, kind) {
            Err(outcome) => self.as_it_is(&invoice_id, outcome),
            Ok(change) => {
                let invoice = &self.invoices[&invoice_id];
                let outcome = match invoice.status() {
                    INVOICE_STATUS_VOID => RECONCILE_OUTCOME_VOIDED,
                    _ if invoice.outstanding() == 0 => RECONCILE_OUTCOME_SETTLED,
                    INVOICE_STATUS_OVERPAID => RECONCILE_OUTCOME_OVERPAID,
                    _ => RECONCILE_OUTCOME_PARTIAL,
                };
                let ack = self.as_it_is(&invoice_id, outcome);
                self.ledger.push((invoice_id, change));
                self.applied.insert(event.event_id.clone(), (content, ack.clone()));
                ack
            }
        }
    }

    /// Changes the invoice, and returns what was added to what is paid of it; or why it does not.
    fn change(&mut self, event: &ReconcileEvent, kind: i32) -> Result<i64, ReconcileOutcome> {
        let invoice = self.invoices.get_mut(&event.invoice_id);
        let invoice = invoice.ok_or(RECONCILE_OUTCOME_UNKNOWN_INVOICE)?;
        if invoice.is_void {
            return Err(RECONCILE_OUTCOME_INVOICE_VOID);
        }
        if invoice.currency != event.currency {
            return Err(RECONCILE_OUTCOME_CURRENCY_MISMATCH);
        }
        if kind == EVENT_KIND_VOID as i32 {
            if event.amount_cents != 0 && event.amount_cents != invoice.total.abs() {
                return Err(RECONCILE_OUTCOME_REJECTED);
            }
            if invoice.paid != 0 {
                return Err(RECONCILE_OUTCOME_HAS_PAYMENTS);
            }
            invoice.is_void = true;
            return Ok(0);
        }
        let is_refund = kind == EVENT_KIND_REFUND as i32;
        let change = if is_refund { -event.amount_cents } else { event.amount_cents };
        let paid = invoice.paid + change;
        if (invoice.total < 0 && paid > 0) || (invoice.total >= 0 && paid < 0) {
            return Err(RECONCILE_OUTCOME_EXCEEDS_PAID);
        }
        invoice.paid = paid;
        Ok(change)
    }

    fn as_it_is(&self, invoice_id: &str, outcome: ReconcileOutcome) -> Ack {
        let invoice = self.invoices.get(invoice_id);
        Ack {
            outcome,
            status: invoice.map_or(INVOICE_STATUS_UNSPECIFIED, Invoice::status),
            outstanding: invoice.map_or(0, Invoice::outstanding),
            duplicate: false,
        }
    }
}
