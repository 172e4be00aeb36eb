//! Values as people write them: times, dates, currencies, names of enums.

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::SignedDuration;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::Enum;

use billstream::proto::report::{InvoiceStatus, ReconcileOutcome};

/// What [`time`] reads, for messages.
pub const EXPECTED_TIME: &str = "an RFC 3339 time such as 1997-01-01T00:00:00Z";

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// The first and last second of a protobuf Timestamp: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Reads an RFC 3339 time. Nanoseconds are kept.
pub fn time(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    // An annotation such as [Europe/Paris] is a time zone, and not of RFC 3339.
    if pieces.time_zone_annotation().is_some() {
        return None;
    }
    let local = pieces.date().to_datetime(pieces.time()?);
    timestamp(local, pieces.to_numeric_offset()?.seconds())
}

/// Reads an RFC 3339 time, or a date, which is its midnight in UTC.
pub fn time_or_date(text: &str) -> Result<Timestamp, String> {
    let date = || timestamp(text.parse::<jiff::civil::Date>().ok()?.at(0, 0, 0, 0), 0);
    // A date and time without an offset would be read as its date: that is a guess, so refuse it.
    let found = if text.contains([':', 'T', 't', ' ']) { time(text) } else { date() };
    found.ok_or_else(|| format!("expected {EXPECTED_TIME}, or a date such as 1997-01-01"))
}

fn timestamp(local: DateTime, offset_seconds: i32) -> Option<Timestamp> {
    let since_epoch = local.duration_since(EPOCH);
    let nanos = since_epoch.subsec_nanos().rem_euclid(1_000_000_000);
    let before = i64::from(since_epoch.subsec_nanos() < 0);
    let seconds = since_epoch.as_secs() - before - i64::from(offset_seconds);
    SECONDS.contains(&seconds).then(|| Timestamp { seconds, nanos, ..Timestamp::default() })
}

/// Writes a time as RFC 3339 in UTC, with as many digits of a second as it has.
pub fn write_time(out: &mut String, time: &Timestamp) {
    use std::fmt::Write;
    let since_epoch = SignedDuration::new(time.seconds, time.nanos);
    let written = match EPOCH.checked_add(since_epoch) {
        Ok(utc) => write!(out, "{utc}Z"),
        Err(_) => write!(out, "{}.{:09}", time.seconds, time.nanos),
    };
    written.expect("a String takes everything");
}

/// Reads a status by its name, in upper or lower case.
pub fn status(text: &str) -> Result<InvoiceStatus, String> {
    let name = text.to_ascii_uppercase().replace('-', "_");
    let known = || InvoiceStatus::VALUES.iter().skip(1);
    known().copied().find(|&status| status_name(status) == name).ok_or_else(|| {
        let names: Vec<_> = known().map(|&status| status_name(status)).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// `PAID` of `INVOICE_STATUS_PAID`; empty when there is no status.
pub fn status_name(status: InvoiceStatus) -> &'static str {
    match status {
        InvoiceStatus::INVOICE_STATUS_UNSPECIFIED => "",
        InvoiceStatus::INVOICE_STATUS_OPEN => "OPEN",
        InvoiceStatus::INVOICE_STATUS_PARTIALLY_PAID => "PARTIALLY_PAID",
        InvoiceStatus::INVOICE_STATUS_PAID => "PAID",
        InvoiceStatus::INVOICE_STATUS_OVERPAID => "OVERPAID",
        InvoiceStatus::INVOICE_STATUS_VOID => "VOID",
    }
}

/// `SETTLED` of `RECONCILE_OUTCOME_SETTLED`.
pub fn outcome_name(outcome: ReconcileOutcome) -> &'static str {
    match outcome {
        ReconcileOutcome::RECONCILE_OUTCOME_UNSPECIFIED => "UNSPECIFIED",
        ReconcileOutcome::RECONCILE_OUTCOME_PARTIAL => "PARTIAL",
        ReconcileOutcome::RECONCILE_OUTCOME_SETTLED => "SETTLED",
        ReconcileOutcome::RECONCILE_OUTCOME_OVERPAID => "OVERPAID",
        ReconcileOutcome::RECONCILE_OUTCOME_UNKNOWN_INVOICE => "UNKNOWN_INVOICE",
        ReconcileOutcome::RECONCILE_OUTCOME_CURRENCY_MISMATCH => "CURRENCY_MISMATCH",
        ReconcileOutcome::RECONCILE_OUTCOME_INVOICE_VOID => "INVOICE_VOID",
        ReconcileOutcome::RECONCILE_OUTCOME_REJECTED => "REJECTED",
    }
}

/// A value of an input in a message: quoted, on one line, and not longer than a message can bear.
pub fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = value.chars().take(LONGEST).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> String {
        let mut out = String::new();
        write_time(&mut out, &time(text).unwrap());
        out
    }

    #[test]
    fn a_time_is_written_in_its_shortest_exact_form() {
        for text in [
            "1997-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "1969-12-31T23:59:59.5Z",
            "2024-02-29T12:30:00.000000001Z",
        ] {
            assert_eq!(again(text), text);
        }
        assert_eq!(again("2024-03-01T00:30:00.120+01:00"), "2024-02-29T23:30:00.12Z");
        assert_eq!(again("1970-01-01 00:00:00-00:30"), "1970-01-01T00:30:00Z");
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "1997-01-01",
            "1997-02-30T00:00:00Z",
            "1997-01-01T00:00:00",
            "1997-01-01T25:00:00Z",
            "1997-01-01T00:00:00Z[UTC]",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-00:01",
            "yesterday",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn a_bound_may_be_a_date() {
        assert_eq!(time_or_date("1997-01-02").unwrap().seconds, 852_163_200);
        assert_eq!(time_or_date("1997-01-02T00:00:01Z").unwrap().seconds, 852_163_201);
        assert!(time_or_date("1997-01-02T00:00:01").is_err());
        assert!(time_or_date("1997-13-01").is_err());
    }

    #[test]
    fn a_status_is_read_in_any_case() {
        assert_eq!(status("partially-paid"), Ok(InvoiceStatus::INVOICE_STATUS_PARTIALLY_PAID));
        assert_eq!(status("Void"), Ok(InvoiceStatus::INVOICE_STATUS_VOID));
        assert!(status("").unwrap_err().starts_with("expected one of OPEN, PARTIALLY_PAID"));
    }
}
