//! From the messages of the wire to the terms of the model: every field is checked here, once.

use protobuf::well_known_types::timestamp::Timestamp as ProtoTimestamp;
use protobuf::{EnumOrUnknown, MessageField, SpecialFields};

use std::fmt::Display;

use crate::currency::minor_digits;
use crate::error::{quoted, Error, Result, Violation, Violations};
use crate::model::{Entry, Event, Filter, Kind, NewInvoice, Timestamp, MAX_AMOUNT_CENTS};
use crate::proto::report::{
    BulkCommit, CreateInvoiceRequest, EventKind, ExportEventsRequest, ExportRequest,
    GetInvoiceRequest, InvoiceStatus, ListInvoicesRequest, ReconcileEvent, SummaryRequest,
};

/// The longest identifier in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// The longest memo or reference in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Seconds of 0001-01-01T00:00:00Z and of 9999-12-31T23:59:59Z, the range of a Timestamp.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The violations found in one message, each under the path of the message.
#[derive(Default)]
struct Checks {
    /// The number of an upload's message: then the path of each field begins with `requests[3].`.
    index: Option<usize>,
    found: Violations,
}

impl Checks {
    fn of_upload(index: usize) -> Checks {
        Checks { index: Some(index), ..Checks::default() }
    }

    fn add(&mut self, field: impl Display, description: impl Display) {
        let path = |index| format!("requests[{index}].");
        let path = || self.index.map(path).unwrap_or_default();
        self.found.add(|| Violation::new(format!("{}{field}", path()), description.to_string()));
    }

    fn text(&mut self, field: &str, value: &str, max_bytes: usize) {
        if value.len() > max_bytes {
            let bytes = value.len();
            self.add(field, format_args!("has {bytes} bytes; at most {max_bytes} are allowed"));
        } else if value.contains('\0') {
            self.add(field, "contains a NUL");
        }
    }

    fn required_id(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.add(field, "is required");
        }
        self.text(field, value, MAX_ID_BYTES);
    }

    fn currency(&mut self, value: &str) {
        if minor_digits(value).is_none() {
            let value = quoted(value);
            self.add("currency", format_args!("{value} is not an ISO 4217 code such as \"USD\""));
        }
    }

    /// A payment where it is not set.
    fn kind(&mut self, kind: EnumOrUnknown<EventKind>) -> Kind {
        match kind.enum_value() {
            Ok(EventKind::EVENT_KIND_REFUND) => Kind::Refund,
            Ok(EventKind::EVENT_KIND_VOID) => Kind::Void,
            Ok(EventKind::EVENT_KIND_UNSPECIFIED | EventKind::EVENT_KIND_PAYMENT) => Kind::Payment,
            Err(number) => {
                self.add("kind", format_args!("{number} is no event kind"));
                Kind::Payment
            }
        }
    }

    fn amount(&mut self, field: &str, cents: i64, least: i64) {
        self.at_least(field, cents, least);
        if cents > MAX_AMOUNT_CENTS {
            self.add(field, format_args!("{cents} is more than {MAX_AMOUNT_CENTS}"));
        }
    }

    fn at_least(&mut self, field: &str, value: i64, least: i64) {
        if value < least {
            self.add(field, format_args!("{value} is less than {least}"));
        }
    }

    /// The time of a field, or `absent` where it is not set.
    fn time(
        &mut self,
        field: &str,
        value: &MessageField<ProtoTimestamp>,
        absent: Option<Timestamp>,
    ) -> Timestamp {
        let Some(value) = value.as_ref() else {
            return absent.unwrap_or_else(|| {
                self.add(field, "is required");
                Timestamp::MIN
            });
        };
        let (seconds, nanos) = (value.seconds, value.nanos);
        if !TIMESTAMP_SECONDS.contains(&seconds) {
            self.add(field, format_args!("{seconds} s is not in the years 0001 to 9999"));
        } else if !(0..1_000_000_000).contains(&nanos) {
            self.add(field, format_args!("{nanos} ns is not in 0 to 999999999"));
        }
        Timestamp { seconds, nanos }
    }

    fn filter(
        &mut self,
        customer_id: String,
        statuses: &[EnumOrUnknown<InvoiceStatus>],
        issued_from: &MessageField<ProtoTimestamp>,
        issued_until: &MessageField<ProtoTimestamp>,
    ) -> Filter {
        self.text("customer_id", &customer_id, MAX_ID_BYTES);
        let issued_from = self.time("issued_from", issued_from, Some(Timestamp::MIN));
        let issued_until = self.time("issued_until", issued_until, Some(Timestamp::MAX));
        if issued_from > issued_until {
            self.add("issued_from", "is after issued_until");
        }
        let statuses = self.statuses(statuses);
        Filter { customer_id, statuses, issued_from, issued_until }
    }

    /// The rows of a page, of which 0 is the default.
    fn page_size(&mut self, field: &str, size: i32, max_page_size: usize) -> usize {
        self.at_least(field, size.into(), 0);
        let size = match size {
            0 => 100,
            // OK because a negative size does not get past `done`.
            size => usize::try_from(size).unwrap_or_default(),
        };
        size.min(max_page_size)
    }

    fn statuses(&mut self, statuses: &[EnumOrUnknown<InvoiceStatus>]) -> i64 {
        if statuses.is_empty() {
            return Filter::ALL_STATUSES;
        }
        let mut mask = 0;
        for (i, status) in statuses.iter().enumerate() {
            match status.value() {
                known @ 1..=5 => mask |= 1 << known,
                other => self.add(
                    format_args!("statuses[{i}]"),
                    format_args!("{other} is no invoice status"),
                ),
            }
        }
        mask
    }

    fn done<T>(self, value: T) -> Result<T> {
        if self.found.is_empty() {
            Ok(value)
        } else {
            Err(Error::Invalid(self.found))
        }
    }
}

pub fn summary(request: SummaryRequest) -> Result<Filter> {
    let mut checks = Checks::default();
    let filter =
        checks.filter(request.customer_id, &[], &request.issued_from, &request.issued_until);
    checks.done(filter)
}

/// The filter and the page size, of which 0 is the default.
pub fn list(request: &ListInvoicesRequest, max_page_size: usize) -> Result<(Filter, usize)> {
    let mut checks = Checks::default();
    let filter = checks.filter(
        request.customer_id.clone(),
        &request.statuses,
        &request.issued_from,
        &request.issued_until,
    );
    let size = checks.page_size("page_size", request.page_size, max_page_size);
    checks.done((filter, size))
}

/// The most events, and that before which they are.
pub fn get_invoice(request: &GetInvoiceRequest, max_page_size: usize) -> Result<(usize, i64)> {
    let mut checks = Checks::default();
    checks.required_id("invoice_id", &request.invoice_id);
    let max_events = checks.page_size("max_events", request.max_events, max_page_size);
    checks.at_least("before_event_sequence", request.before_event_sequence, 0);
    let before = match request.before_event_sequence {
        0 => i64::MAX,
        before => before,
    };
    checks.done((max_events, before))
}

/// The filter, the cursor and the most rows (0: all).
pub fn export(request: ExportRequest) -> Result<(Filter, i64, i64)> {
    let mut checks = Checks::default();
    checks.at_least("after_sequence", request.after_sequence, 0);
    checks.at_least("max_rows", request.max_rows, 0);
    let filter = checks.filter(
        request.customer_id,
        &request.statuses,
        &request.issued_from,
        &request.issued_until,
    );
    checks.done((filter, request.after_sequence, request.max_rows))
}

/// The cursor and the most events (0: all).
pub fn export_events(request: &ExportEventsRequest) -> Result<(i64, i64)> {
    let mut checks = Checks::default();
    checks.at_least("after_event_sequence", request.after_event_sequence, 0);
    checks.at_least("max_events", request.max_events, 0);
    checks.done((request.after_event_sequence, request.max_events))
}

/// The invoice of the upload's message number `index`.
pub fn invoice(request: &CreateInvoiceRequest, index: usize) -> Result<NewInvoice<'_>> {
    let mut checks = Checks::of_upload(index);
    checks.text("invoice_id", &request.invoice_id, MAX_ID_BYTES);
    checks.required_id("customer_id", &request.customer_id);
    checks.amount("total_amount_cents", request.total_amount_cents, -MAX_AMOUNT_CENTS);
    checks.currency(&request.currency);
    checks.text("memo", &request.memo, MAX_TEXT_BYTES);
    let issued_at = checks.time("issued_at", &request.issued_at, None);
    checks.done(NewInvoice {
        invoice_id: &request.invoice_id,
        customer_id: &request.customer_id,
        total_amount_cents: request.total_amount_cents,
        currency: &request.currency,
        issued_at,
        memo: &request.memo,
    })
}

/// The commit that is the upload's message number `index`.
pub fn commit(request: &CreateInvoiceRequest, index: usize) -> Result<BulkCommit> {
    let mut checks = Checks::of_upload(index);
    if !is_commit_alone(request) {
        checks.add("commit", "a commit has no other field beside it");
    }
    let BulkCommit { batch_id, count, validate_only, .. } = request.commit.get_or_default();
    checks.text("commit.batch_id", batch_id, MAX_ID_BYTES);
    checks.at_least("commit.count", *count, 0);
    checks.done(())?;
    // What the message has besides is not kept.
    let (batch_id, count, validate_only) = (batch_id.clone(), *count, *validate_only);
    Ok(BulkCommit { batch_id, count, validate_only, ..Default::default() })
}

fn is_commit_alone(request: &CreateInvoiceRequest) -> bool {
    let CreateInvoiceRequest {
        invoice_id,
        customer_id,
        total_amount_cents,
        currency,
        issued_at,
        memo,
        commit: _,
        special_fields,
    } = request;
    [invoice_id, customer_id, currency, memo].iter().all(|text| text.is_empty())
        && *total_amount_cents == 0
        && issued_at.is_none()
        && *special_fields == SpecialFields::default()
}

/// An event. What is wrong with it is part of it: it is refused in its turn, and the stream goes on. Of a
/// refused one only the id is kept, and none that is too long.
pub fn event(event: ReconcileEvent) -> Event {
    let mut checks = Checks::default();
    checks.required_id("event_id", &event.event_id);
    checks.required_id("invoice_id", &event.invoice_id);
    let kind = checks.kind(event.kind);
    checks.amount("amount_cents", event.amount_cents, if kind == Kind::Void { 0 } else { 1 });
    checks.currency(&event.currency);
    checks.text("reference", &event.reference, MAX_TEXT_BYTES);
    let received_at = checks.time("received_at", &event.received_at, None);
    let entry = Entry {
        kind,
        invoice_id: event.invoice_id,
        amount_cents: event.amount_cents,
        currency: event.currency,
        received_at,
        reference: event.reference,
    };
    let entry = match checks.found.first() {
        Some(violation) => Err(violation.clone()),
        None => Ok(entry),
    };
    let is_long = event.event_id.len() > MAX_ID_BYTES;
    Event { event_id: if is_long { String::new() } else { event.event_id }, entry }
}
