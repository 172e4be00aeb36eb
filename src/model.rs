//! The terms of billing that the store and the calls share.

use crate::error::Violation;

/// The most that one amount may be, on either side of zero, in minor units of its currency: 9,223 of them fill the 64 bits of its
/// totals, so that no slip of a keyboard ends a currency for everyone. What is written in the smallest
/// units fits with room (10^13 Iranian rials or Indonesian rupiah, 10^15 yen), and a double is still exact.
pub const MAX_AMOUNT_CENTS: i64 = 1_000_000_000_000_000;

/// A point in time, UTC. Ordered by time. The default is 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: i32,
}

impl Timestamp {
    /// Before every time that an invoice can have.
    pub const MIN: Timestamp = Timestamp { seconds: i64::MIN, nanos: 0 };
    /// After every time that an invoice can have.
    pub const MAX: Timestamp = Timestamp { seconds: i64::MAX, nanos: 0 };
}

/// Where an invoice stands; the numbers are those of the proto enum and of the database.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Open = 1,
    PartiallyPaid = 2,
    Paid = 3,
    Overpaid = 4,
    Void = 5,
}

impl Status {
    /// The status of an invoice that is not void. A credit note is the same on the other side of zero.
    pub fn of(total_amount_cents: i64, paid_cents: i64) -> Status {
        let paid_to_total = match total_amount_cents < 0 {
            true => total_amount_cents.cmp(&paid_cents),
            false => paid_cents.cmp(&total_amount_cents),
        };
        match paid_to_total {
            std::cmp::Ordering::Less if paid_cents == 0 => Status::Open,
            std::cmp::Ordering::Less => Status::PartiallyPaid,
            std::cmp::Ordering::Equal => Status::Paid,
            std::cmp::Ordering::Greater => Status::Overpaid,
        }
    }
}

/// Which invoices a reader asks for.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Empty: all customers.
    pub customer_id: String,
    /// Bit `1 << status` for each status asked for.
    pub statuses: i64,
    /// Included.
    pub issued_from: Timestamp,
    /// Not included.
    pub issued_until: Timestamp,
}

impl Filter {
    /// Every status there is.
    pub const ALL_STATUSES: i64 = 0b11_1110;

    /// Every invoice there is.
    pub const ALL: Filter = Filter {
        customer_id: String::new(),
        statuses: Filter::ALL_STATUSES,
        issued_from: Timestamp::MIN,
        issued_until: Timestamp::MAX,
    };

    pub fn has_dates(&self) -> bool {
        self.issued_from != Timestamp::MIN || self.issued_until != Timestamp::MAX
    }
}

/// A valid invoice to be created. It borrows from a request or from a staged upload.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewInvoice<'a> {
    /// Empty: the store assigns one.
    pub invoice_id: &'a str,
    pub customer_id: &'a str,
    /// Under 0: a credit note.
    pub total_amount_cents: i64,
    pub currency: &'a str,
    pub issued_at: Timestamp,
    pub memo: &'a str,
}

/// An event of Reconcile: one that is fit to be applied, or one that is to be refused.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Event {
    /// Empty where that of the message is too long.
    pub event_id: String,
    /// What to apply, or what is wrong with it.
    pub entry: Result<Entry, Violation>,
}

/// What an event does; the numbers are those of the proto enum and of the database.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Payment = 1,
    Refund = 2,
    Void = 3,
}

/// An event that is fit to be applied.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: Kind,
    pub invoice_id: String,
    /// Over 0; of a void, or 0.
    pub amount_cents: i64,
    pub currency: String,
    pub received_at: Timestamp,
    pub reference: String,
}

/// What became of an event; the numbers are those of the proto enum and of the database.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Partial = 1,
    Settled = 2,
    Overpaid = 3,
    UnknownInvoice = 4,
    CurrencyMismatch = 5,
    InvoiceVoid = 6,
    Rejected = 7,
    EventIdReused = 8,
    Voided = 9,
    ExceedsPaid = 10,
    HasPayments = 11,
}

/// The acknowledgement of an event, whose id is not said again.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The number of an [`Outcome`].
    pub outcome: i32,
    /// The number of a [`Status`], or 0.
    pub invoice_status: i32,
    pub outstanding_cents: i64,
    pub duplicate: bool,
    pub message: String,
}

/// Counts and sums of invoices of one currency, or what is added to them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub invoice_count: i64,
    pub total_cents: i64,
    pub paid_cents: i64,
    pub credit_note_count: i64,
    pub credit_note_cents: i64,
    pub void_count: i64,
    pub void_cents: i64,
    /// The part of `paid_cents` that is of credit notes.
    pub credit_note_paid_cents: i64,
}

impl Sums {
    /// Those of one invoice.
    pub fn of(total_amount_cents: i64, paid_cents: i64, is_void: bool) -> Sums {
        let is_credit_note = total_amount_cents < 0;
        Sums {
            invoice_count: 1,
            total_cents: total_amount_cents,
            paid_cents,
            credit_note_count: is_credit_note.into(),
            credit_note_cents: total_amount_cents.min(0),
            void_count: is_void.into(),
            void_cents: if is_void { total_amount_cents } else { 0 },
            credit_note_paid_cents: if is_credit_note { paid_cents } else { 0 },
        }
    }

    /// `None` where a sum would leave 64 bits.
    pub fn plus(self, more: Sums) -> Option<Sums> {
        Some(Sums {
            invoice_count: self.invoice_count.checked_add(more.invoice_count)?,
            total_cents: self.total_cents.checked_add(more.total_cents)?,
            paid_cents: self.paid_cents.checked_add(more.paid_cents)?,
            credit_note_count: self.credit_note_count.checked_add(more.credit_note_count)?,
            credit_note_cents: self.credit_note_cents.checked_add(more.credit_note_cents)?,
            void_count: self.void_count.checked_add(more.void_count)?,
            void_cents: self.void_cents.checked_add(more.void_cents)?,
            credit_note_paid_cents: self
                .credit_note_paid_cents
                .checked_add(more.credit_note_paid_cents)?,
        })
    }

    /// `None` where it would leave 64 bits.
    pub fn outstanding_cents(&self) -> Option<i64> {
        self.total_cents.checked_sub(self.void_cents)?.checked_sub(self.paid_cents)
    }

    /// Whether the invoices and the credit notes each fit into 64 bits, and all that can be owed by customers, and all that
    /// can be owed to them: then the sums of any of them do, such as those of a customer.
    pub fn fit(&self) -> bool {
        let (notes, notes_paid) = (self.credit_note_cents, self.credit_note_paid_cents);
        let owed_by =
            self.total_cents.checked_sub(notes).and_then(|all| all.checked_sub(notes_paid));
        let owed_to =
            self.paid_cents.checked_sub(notes_paid).and_then(|all| notes.checked_sub(all));
        owed_by.is_some() && owed_to.is_some()
    }
}

/// Counts and sums of the invoices of one currency.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrencyTotal {
    pub currency: String,
    pub sums: Sums,
}

#[doc(hidden)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub totals: Vec<CurrencyTotal>,
    pub last_sequence: i64,
    pub last_event_sequence: i64,
}

/// What an upload created.
#[doc(hidden)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Created {
    pub count: i64,
    pub totals: Vec<CurrencyTotal>,
    pub first_sequence: i64,
    pub last_sequence: i64,
    /// An earlier upload with the same batch_id created them.
    pub already_applied: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one customer owes and what another is owed cancel in the sum of the currency, and not in their own.
    #[test]
    fn sums_that_fit_fit_in_parts() {
        const LARGE: i64 = 5_000_000_000_000_000_000;
        let open = Sums::of(LARGE, 0, false);
        let too_much_refunded = Sums::of(-1, -LARGE, false);
        let too_much_paid = Sums::of(1, LARGE, false);
        let owed_by_one = open.plus(too_much_refunded).unwrap();
        let all = owed_by_one.plus(too_much_paid).unwrap();
        assert!(all.outstanding_cents().is_some() && owed_by_one.outstanding_cents().is_none());
        assert!(!all.fit() && open.fit() && too_much_refunded.plus(too_much_paid).unwrap().fit());
    }
}
