//! Values as people write them: times, dates, currencies, names of enums.

use jiff::civil::DateTime;
use jiff::SignedDuration;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::Enum;

use billstream::proto::report::{EventKind, InvoiceStatus, ReconcileOutcome};

/// The contract's limits on text, in bytes.
pub const MAX_ID_BYTES: usize = 128;
pub const MAX_MEMO_BYTES: usize = 1024;

/// What [`time`] reads, for messages.
pub const EXPECTED_TIME: &str = "an RFC 3339 time such as 1997-01-01T00:00:00Z";

pub const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// The first and last second of a protobuf Timestamp: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Reads an RFC 3339 time, of all its forms and no other: with a letter of any case or a space between date
/// and time, and up to nine digits of a second, which are kept. The error says what was expected.
pub fn time(text: &str) -> Result<Timestamp, String> {
    read_time(text).map_err(|why| format!("{EXPECTED_TIME}{why}"))
}

/// jiff reads more than RFC 3339 has, and takes a leap second for the second before it: so it is given
/// numbers, and not the text.
fn read_time(text: &str) -> Result<Timestamp, &'static str> {
    let (clock, rest) = text.split_at_checked(19).ok_or("")?;
    if shape(clock) != "0000-00-00T00:00:00" {
        return Err("");
    }
    let (nanos, rest) = read_fraction(rest)?;
    let offset_seconds = read_offset(rest)?;
    let two = |at| digits(&clock[at..at + 2]) as i8;
    if two(17) == 60 {
        return Err(" (a leap second cannot be kept)");
    }
    let year = digits(&clock[..4]) as i16;
    let local = DateTime::new(year, two(5), two(8), two(11), two(14), two(17), nanos);
    let local = local.map_err(|_| " (there is no such day or time of day)")?;
    timestamp(local, offset_seconds).ok_or(" (in UTC its year is not in 0001 to 9999)")
}

/// `00` for `59`, and `T` for what may be in its place.
pub fn shape(text: &str) -> String {
    let kind = |c: char| match c {
        '0'..='9' => '0',
        't' | ' ' => 'T',
        other => other,
    };
    text.chars().map(kind).collect()
}

/// The number of a few ASCII digits.
fn digits(text: &str) -> i32 {
    text.bytes().fold(0, |number, digit| number * 10 + i32::from(digit - b'0'))
}

/// The nanoseconds of `.5Z`, and what follows them.
fn read_fraction(text: &str) -> Result<(i32, &str), &'static str> {
    let Some(text) = text.strip_prefix('.') else { return Ok((0, text)) };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    match end {
        0 => Err(""),
        1..=9 => Ok((digits(&text[..end]) * 10i32.pow(9 - end as u32), &text[end..])),
        _ => Err(" (a second has nine decimals at most)"),
    }
}

/// The seconds of `Z` or `+01:00`.
fn read_offset(text: &str) -> Result<i32, &'static str> {
    if matches!(text, "Z" | "z") {
        return Ok(0);
    }
    if text.is_empty() {
        return Err(" (without Z or an offset such as +01:00 it is not known when that was)");
    }
    let sign = match text.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return Err(""),
    };
    if shape(&text[1..]) != "00:00" {
        return Err("");
    }
    match (digits(&text[1..3]), digits(&text[4..])) {
        (hours @ 0..=23, minutes @ 0..=59) => Ok(sign * (hours * 3600 + minutes * 60)),
        _ => Err(" (its offset ends at 23:59)"),
    }
}

/// Reads an RFC 3339 time, or a date, which is its midnight in UTC.
pub fn time_or_date(text: &str) -> Result<Timestamp, String> {
    let found = match shape(text) == "0000-00-00" {
        true => read_time(&format!("{text}T00:00:00Z")),
        false => read_time(text),
    };
    found.map_err(|why| format!("expected {EXPECTED_TIME}, or a date such as 1997-01-01{why}"))
}

pub fn timestamp(local: DateTime, offset_seconds: i32) -> Option<Timestamp> {
    let since_epoch = local.duration_since(EPOCH);
    let nanos = since_epoch.subsec_nanos().rem_euclid(1_000_000_000);
    let before = i64::from(since_epoch.subsec_nanos() < 0);
    let seconds = since_epoch.as_secs() - before - i64::from(offset_seconds);
    SECONDS.contains(&seconds).then(|| Timestamp { seconds, nanos, ..Timestamp::default() })
}

/// Writes a time as RFC 3339 in UTC, with as many digits of a second as it has.
pub fn write_time(out: &mut String, time: billstream::model::Timestamp) {
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

/// Reads a kind by its name, in upper or lower case. Nothing is a payment.
pub fn kind(text: &str) -> Result<EventKind, &'static str> {
    match text.to_ascii_uppercase().as_str() {
        "" | "PAYMENT" => Ok(EventKind::EVENT_KIND_PAYMENT),
        "REFUND" => Ok(EventKind::EVENT_KIND_REFUND),
        "VOID" => Ok(EventKind::EVENT_KIND_VOID),
        _ => Err("PAYMENT, REFUND or VOID; nothing is a payment"),
    }
}

/// `REFUND` of `EVENT_KIND_REFUND`; what is not set is a payment.
pub fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::EVENT_KIND_UNSPECIFIED | EventKind::EVENT_KIND_PAYMENT => "PAYMENT",
        EventKind::EVENT_KIND_REFUND => "REFUND",
        EventKind::EVENT_KIND_VOID => "VOID",
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
        ReconcileOutcome::RECONCILE_OUTCOME_EVENT_ID_REUSED => "EVENT_ID_REUSED",
        ReconcileOutcome::RECONCILE_OUTCOME_VOIDED => "VOIDED",
        ReconcileOutcome::RECONCILE_OUTCOME_EXCEEDS_PAID => "EXCEEDS_PAID",
        ReconcileOutcome::RECONCILE_OUTCOME_HAS_PAYMENTS => "HAS_PAYMENTS",
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
        let time = time(text).unwrap();
        let (seconds, nanos) = (time.seconds, time.nanos);
        write_time(&mut out, billstream::model::Timestamp { seconds, nanos });
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
    fn every_form_of_rfc_3339_is_read() {
        for (text, utc) in [
            ("2024-05-01t10:00:00z", "2024-05-01T10:00:00Z"),
            ("2024-05-01 10:00:00.5+00:00", "2024-05-01T10:00:00.5Z"),
            ("2024-05-01T10:00:00-00:00", "2024-05-01T10:00:00Z"),
            ("2024-05-01T10:00:00+23:59", "2024-04-30T10:01:00Z"),
            ("2024-05-01T10:00:00-23:59", "2024-05-02T09:59:00Z"),
            ("2024-05-01T23:59:59.123456789Z", "2024-05-01T23:59:59.123456789Z"),
            ("2024-05-01T23:59:59.000000000Z", "2024-05-01T23:59:59Z"),
            ("0000-12-31T23:59:00-00:01", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59Z"),
        ] {
            assert_eq!(again(text), utc, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for (text, why) in [
            ("", ""),
            ("yesterday", ""),
            ("1997-01-01", ""),
            ("1997-01-01T00:00Z", ""),
            ("1997-01-01T00Z", ""),
            ("19970101T000000Z", ""),
            ("1997-W01-1T00:00:00Z", ""),
            ("1997-001T00:00:00Z", ""),
            ("+001997-01-01T00:00:00Z", ""),
            ("-0001-01-01T00:00:00Z", ""),
            ("01997-01-01T00:00:00Z", ""),
            ("1997-1-1T00:00:00Z", ""),
            ("1997-01-01T00:00:00,5Z", ""),
            ("1997-01-01T00:00:00.Z", ""),
            ("1997-01-01  00:00:00Z", ""),
            (" 1997-01-01T00:00:00Z", ""),
            ("1997-01-01T00:00:00Z ", ""),
            ("1997-01-01T00:00:00 Z", ""),
            ("1997-01-01T00:00:00Z[UTC]", ""),
            ("1997-01-01T00:00:00+01:00[Europe/Paris]", ""),
            ("1997-01-01T00:00:00+01", ""),
            ("1997-01-01T00:00:00+0100", ""),
            ("1997-01-01T00:00:00+1:00", ""),
            ("1997-01-01T00:00:00+01:00:00", ""),
            ("1997-01-01T00:00:00\u{2212}01:00", ""),
            ("1997-01-01T00:00:00GMT", ""),
            ("1997-01-01T00:00:0\u{0660}Z", ""),
            ("1997-01-01T00:00:00.1234567890Z", " (a second has nine decimals at most)"),
            ("1997-01-01T00:00:00", " (without Z or an offset"),
            ("1997-01-01T00:00:00.5", " (without Z or an offset"),
            ("1997-01-01T00:00:00+24:00", " (its offset ends at 23:59)"),
            ("1997-01-01T00:00:00+25:00", " (its offset ends at 23:59)"),
            ("1997-01-01T00:00:00-99:59", " (its offset ends at 23:59)"),
            ("1997-01-01T00:00:00+00:60", " (its offset ends at 23:59)"),
            ("2016-12-31T23:59:60Z", " (a leap second cannot be kept)"),
            ("1997-01-01T10:20:60Z", " (a leap second cannot be kept)"),
            ("1997-01-01T10:20:61Z", " (there is no such day or time of day)"),
            ("1997-02-30T00:00:00Z", " (there is no such day or time of day)"),
            ("1997-00-01T00:00:00Z", " (there is no such day or time of day)"),
            ("1997-13-01T00:00:00Z", " (there is no such day or time of day)"),
            ("1997-01-01T24:00:00Z", " (there is no such day or time of day)"),
            ("1997-01-01T25:00:00Z", " (there is no such day or time of day)"),
            ("1997-01-01T00:60:00Z", " (there is no such day or time of day)"),
            ("0000-01-01T00:00:00Z", " (in UTC its year is not in 0001 to 9999)"),
            ("0001-01-01T00:00:00+01:00", " (in UTC its year is not in 0001 to 9999)"),
            ("9999-12-31T23:59:59-00:01", " (in UTC its year is not in 0001 to 9999)"),
        ] {
            let message = time(text).expect_err(text);
            assert!(message.starts_with(&format!("{EXPECTED_TIME}{why}")), "{text}: {message}");
            assert_eq!(why.is_empty(), message == EXPECTED_TIME, "{text}: {message}");
        }
    }

    #[test]
    fn a_bound_may_be_a_date() {
        assert_eq!(time_or_date("1997-01-02").unwrap().seconds, 852_163_200);
        assert_eq!(time_or_date("1997-01-02T00:00:01Z").unwrap().seconds, 852_163_201);
        for wrong in ["1997-01-02T00:00:01", "1997-13-01", "19970102", "1997-1-2", "1997-01-02T"] {
            assert!(time_or_date(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_status_is_read_in_any_case() {
        assert_eq!(status("partially-paid"), Ok(InvoiceStatus::INVOICE_STATUS_PARTIALLY_PAID));
        assert_eq!(status("Void"), Ok(InvoiceStatus::INVOICE_STATUS_VOID));
        assert!(status("").unwrap_err().starts_with("expected one of OPEN, PARTIALLY_PAID"));
    }
}
