//! What a valid message is, as the proto file says. The limits are the main crate's defaults.

use iso_currency::Currency;
use prost::Message;
use prost_types::Timestamp;
use tonic::metadata::MetadataMap;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::proto::{BulkCommit, CreateInvoiceRequest, InvoiceStatus, ReconcileEvent};

pub const MAX_ID_BYTES: usize = 128;
pub const MAX_TEXT_BYTES: usize = 1024;
/// The most that one amount may be.
pub const MAX_AMOUNT_CENTS: i64 = 1_000_000_000_000_000;
pub const MAX_PAGE_SIZE: usize = 1000;
pub const MAX_UPLOAD_ROWS: usize = 1_000_000;
pub const MAX_UPLOAD_BYTES: usize = 256 << 20;
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The first and the last second that RFC 3339 can write: years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The malformed fields of a message: path and what was expected.
#[derive(Default)]
pub struct Violations(Vec<(String, &'static str)>);

impl Violations {
    pub fn check(&mut self, ok: bool, field: &str, expected: &'static str) {
        if !ok {
            self.0.push((field.to_owned(), expected));
        }
    }

    fn id(&mut self, value: &str, field: &str) {
        let ok = value.len() <= MAX_ID_BYTES && !value.contains('\0');
        self.check(ok, field, "must be at most 128 bytes without NUL");
    }

    fn required_id(&mut self, value: &str, field: &str) {
        self.check(!value.is_empty(), field, "must not be empty");
        self.id(value, field);
    }

    fn text(&mut self, value: &str, field: &str) {
        let ok = value.len() <= MAX_TEXT_BYTES && !value.contains('\0');
        self.check(ok, field, "must be at most 1,024 bytes without NUL");
    }

    fn currency(&mut self, value: &str, field: &str) {
        self.check(Currency::from_code(value).is_some(), field, "must be an ISO 4217 code");
    }

    fn time(&mut self, value: Option<&Timestamp>, field: &str) {
        let ok = value
            .is_none_or(|t| SECONDS.contains(&t.seconds) && (0..1_000_000_000).contains(&t.nanos));
        self.check(ok, field, "must be a valid Timestamp");
    }

    fn required_time(&mut self, value: Option<&Timestamp>, field: &str) {
        self.check(value.is_some(), field, "must be set");
        self.time(value, field);
    }

    /// INVALID_ARGUMENT with a BadRequest that names each field, or nothing.
    pub fn finish(self, prefix: &str) -> Result<(), Status> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut details = ErrorDetails::new();
        let mut message = String::new();
        for (field, expected) in self.0 {
            let field = format!("{prefix}{field}");
            message.push_str(if message.is_empty() { "" } else { "; " });
            message.push_str(&format!("{field}: {expected}"));
            details.add_bad_request_violation(field, expected);
        }
        Err(Status::with_error_details(tonic::Code::InvalidArgument, message, details))
    }

    /// The same as one line, for an acknowledgement.
    pub fn message(&self) -> Option<String> {
        self.0.first().map(|(field, expected)| format!("{field}: {expected}"))
    }
}

/// INVALID_ARGUMENT for one field.
pub fn invalid(field: &str, expected: &'static str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, expected);
    let message = format!("{field}: {expected}");
    Status::with_error_details(tonic::Code::InvalidArgument, message, details)
}

/// What an upload has sent so far, checked as it comes and staged outside the database.
#[derive(Default)]
pub struct Upload {
    pub invoices: Vec<CreateInvoiceRequest>,
    pub commit: Option<BulkCommit>,
    bytes: usize,
}

impl Upload {
    pub fn push(&mut self, message: CreateInvoiceRequest) -> Result<(), Status> {
        let index = self.invoices.len();
        if self.commit.is_some() {
            return Err(invalid(&format!("requests[{index}]"), "nothing may follow the commit"));
        }
        if message.commit.is_some() {
            return self.close(index, message);
        }
        self.bytes += message.encoded_len();
        if index == MAX_UPLOAD_ROWS || self.bytes > MAX_UPLOAD_BYTES {
            return Err(Status::resource_exhausted("the upload is over its limit"));
        }
        invoice(index, &message)?;
        self.invoices.push(message);
        Ok(())
    }

    fn close(&mut self, index: usize, message: CreateInvoiceRequest) -> Result<(), Status> {
        let alone = CreateInvoiceRequest { commit: message.commit.clone(), ..Default::default() };
        let commit = message.commit.clone().unwrap_or_default();
        let mut violations = Violations::default();
        violations.check(message == alone, "commit", "must be the only field of its message");
        violations.id(&commit.batch_id, "commit.batch_id");
        violations.check(commit.count >= 0, "commit.count", "must be 0 or more");
        violations.finish(&format!("requests[{index}]."))?;
        self.commit = Some(commit);
        Ok(())
    }

    /// Checks the end of the stream. `required`: the client promised a commit.
    pub fn finish(self, required: bool) -> Result<Upload, Status> {
        let received = self.invoices.len() as i64;
        match &self.commit {
            None if required => Err(Status::aborted("the upload ended without its commit")),
            Some(commit) if commit.count != received => Err(Status::aborted(format!(
                "the commit says {} invoices, {received} were received",
                commit.count
            ))),
            _ => Ok(self),
        }
    }
}

/// True when the client said that its upload ends with a commit.
pub fn commit_required(metadata: &MetadataMap) -> bool {
    metadata.get("billstream-commit").is_some_and(|value| value == "required")
}

fn invoice(index: usize, invoice: &CreateInvoiceRequest) -> Result<(), Status> {
    let mut violations = Violations::default();
    violations.id(&invoice.invoice_id, "invoice_id");
    violations.required_id(&invoice.customer_id, "customer_id");
    let is_amount = (0..=MAX_AMOUNT_CENTS).contains(&invoice.total_amount_cents);
    violations.check(is_amount, "total_amount_cents", "must be 0 to 10^15");
    violations.currency(&invoice.currency, "currency");
    violations.text(&invoice.memo, "memo");
    violations.required_time(invoice.issued_at.as_ref(), "issued_at");
    if violations.0.is_empty() {
        return Ok(()); // Without making the prefix, which is rarely needed.
    }
    violations.finish(&format!("requests[{index}]."))
}

/// What is wrong with an event.
pub fn event(event: &ReconcileEvent) -> Option<String> {
    let mut violations = Violations::default();
    violations.required_id(&event.event_id, "event_id");
    violations.required_id(&event.invoice_id, "invoice_id");
    let is_amount = (1..=MAX_AMOUNT_CENTS).contains(&event.amount_cents);
    violations.check(is_amount, "amount_cents", "must be 1 to 10^15");
    violations.currency(&event.currency, "currency");
    violations.text(&event.reference, "reference");
    violations.required_time(event.received_at.as_ref(), "received_at");
    violations.message()
}

/// Checks the filter that summaries, lists and exports share.
pub fn filter(
    customer: &str,
    statuses: &[i32],
    from: Option<&Timestamp>,
    until: Option<&Timestamp>,
) -> Result<(), Status> {
    let mut violations = Violations::default();
    violations.id(customer, "customer_id");
    let known = |&status: &i32| status != 0 && InvoiceStatus::try_from(status).is_ok();
    violations.check(statuses.iter().all(known), "statuses", "must be statuses of an invoice");
    violations.time(from, "issued_from");
    violations.time(until, "issued_until");
    let key = |time: &Timestamp| (time.seconds, time.nanos);
    let ordered = from.zip(until).is_none_or(|(from, until)| key(from) <= key(until));
    violations.check(ordered, "issued_from", "must not be after issued_until");
    violations.finish("")
}
