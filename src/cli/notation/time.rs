//! Times as files have them: in RFC 3339, or in a format and from a time zone of their own.
//!
//! A time that a zone has twice or not at all, as in the nights when clocks are changed, is refused: which one was
//! meant is not known here.

use jiff::civil::{self, DateTime};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{self, AmbiguousOffset, Offset, TimeZone};
use jiff::SignedDuration;
use protobuf::well_known_types::timestamp::Timestamp;

use crate::cli::nearest::nearest;
use crate::cli::values::{self, quoted, EPOCH, EXPECTED_TIME};

/// How the times of a zone are written without a format: RFC 3339, with as many digits of a second as they have.
const RFC_3339: &str = "%Y-%m-%dT%H:%M:%S%.f%:z";

/// With what a format is tried. Its day is no month, and its hour none of a clock with twelve.
const SAMPLE: DateTime = civil::datetime(2010, 12, 31, 13, 59, 58, 0);

/// What spreadsheets count the days as that are likely in books: from 1927 to 9999.
const SERIALS: std::ops::RangeInclusive<u32> = 10_000..=2_958_465;

/// How the times of a file are written.
#[derive(Clone, Debug, Default)]
pub struct TimeNotation {
    /// None: RFC 3339.
    format: Option<String>,
    /// Where times without an offset are from, and which times are written.
    zone: Option<TimeZone>,
}

impl TimeNotation {
    /// Times of a file to read: in `format`, which has the fields of strftime, and where they have no offset from
    /// the time zone named `zone`. The error says which of the two options is wrong.
    pub fn new(format: Option<&str>, zone: Option<&str>) -> Result<TimeNotation, String> {
        let notation = TimeNotation::writing(format, zone)?;
        if let Some(format) = format {
            check_readable(format, zone.is_some(), &notation.sample()?)
                .map_err(|why| format!("--time-format {}: {why}", quoted(format)))?;
        }
        Ok(notation)
    }

    /// Times of a file to write: in `format`, and of the time zone named `zone`; without it of UTC.
    pub fn writing(format: Option<&str>, zone: Option<&str>) -> Result<TimeNotation, String> {
        let zone = zone.map(find_zone).transpose()?;
        let notation = TimeNotation { format: format.map(str::to_owned), zone };
        notation.sample()?;
        Ok(notation)
    }

    /// What [`SAMPLE`] looks like.
    fn sample(&self) -> Result<String, String> {
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        let format = self.format.as_deref().unwrap_or(RFC_3339);
        let sample = SAMPLE.to_zoned(zone).map(|sample| BrokenDownTime::from(&sample));
        let written = sample.and_then(|sample| sample.to_string(format));
        written.map_err(|error| format!("--time-format {}: {error}", quoted(format)))
    }

    /// Reads a time. The error is what was expected, and why `text` is not it.
    pub fn parse(&self, text: &str) -> Result<Timestamp, String> {
        let (expected, why) = match &self.format {
            Some(format) => match self.parse_format(format, text) {
                Ok(time) => return Ok(time),
                Err(why) => (format!("a time such as {}", self.sample().unwrap_or_default()), why),
            },
            None => match self.parse_iso(text) {
                Ok(time) => return Ok(time),
                Err(why) => (self.expected_iso(), why),
            },
        };
        Err(match is_serial(text) {
            true => format!("{expected} ({SERIAL})"),
            false if why.is_empty() => expected,
            false => format!("{expected} ({why})"),
        })
    }

    fn expected_iso(&self) -> String {
        match self.zone {
            Some(_) => "a time such as 1997-01-01T00:00:00Z, or 1997-01-01 00:00:00 of --timezone"
                .to_owned(),
            None => EXPECTED_TIME.to_owned(),
        }
    }

    /// RFC 3339; of a zone also without an offset, without seconds, or a date alone.
    fn parse_iso(&self, text: &str) -> Result<Timestamp, Why> {
        let Some((as_utc, is_date)) = with_utc(text) else {
            return values::time(text).map_err(|message| match why(&message) {
                "" => "--time-format tells of other forms".to_owned(),
                why => why.to_owned(),
            });
        };
        let Some(zone) = &self.zone else {
            return Err("--timezone tells where a time without Z or an offset is from".to_owned());
        };
        let utc = values::time(&as_utc).map_err(|message| why(&message).to_owned())?;
        resolve(EPOCH + SignedDuration::new(utc.seconds, utc.nanos), is_date, zone)
    }

    fn parse_format(&self, format: &str, text: &str) -> Result<Timestamp, Why> {
        let time = BrokenDownTime::parse(format, text).map_err(|_| Why::new())?;
        if let Some(time) = time.timestamp() {
            return timestamp(EPOCH + time.as_duration(), Offset::UTC);
        }
        let local = time.to_datetime().map_err(|_| "there is no such day or time of day")?;
        if is_leap_second(&time, format, text) {
            return Err("a leap second cannot be kept".to_owned());
        }
        // Where %Y is to be read, 10 is a year of the Roman empire, and most likely not meant so.
        if local.year() < 1000 && !text.contains(&format!("{:04}", local.year())) {
            return Err("a year has four digits, or two where %y is in place of %Y".to_owned());
        }
        match (time.offset(), &self.zone) {
            (Some(offset), _) => timestamp(local, offset),
            (None, Some(zone)) => resolve(local, time.hour().is_none(), zone),
            (None, None) => Err("--timezone tells where it is from".to_owned()),
        }
    }

    /// Writes a time. Fails for the last day of the year 9999, which may be none in a zone; not so as RFC 3339 in UTC.
    pub fn write(
        &self,
        out: &mut String,
        time: billstream::model::Timestamp,
    ) -> Result<(), String> {
        if self.format.is_none() && self.zone.is_none() {
            values::write_time(out, time);
            return Ok(());
        }
        let format = self.format.as_deref().unwrap_or(RFC_3339);
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        let time = jiff::Timestamp::new(time.seconds, time.nanos).map(|time| time.to_zoned(zone));
        let written = time.and_then(|time| BrokenDownTime::from(&time).format(format, out));
        written.map_err(|error| error.to_string())
    }
}

/// Why a text is no time of a notation; empty where there is nothing to say.
type Why = String;

const SERIAL: &str =
    "a spreadsheet counts days so: have it show the column as dates before it writes the file";

/// The reason in a message of [`values::time`].
fn why(message: &str) -> &str {
    message.strip_prefix(EXPECTED_TIME).unwrap_or(message).trim_matches([' ', '(', ')'])
}

fn find_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        let known: Vec<_> = tz::db().available().map(|known| known.to_string()).collect();
        let nearest = nearest(name, known.iter().map(String::as_str));
        format!("--timezone {}: there is no such time zone; is it {nearest}?", quoted(name))
    })
}

/// Holds a format to giving a time back that it has written, as `sample`.
fn check_readable(format: &str, has_zone: bool, sample: &str) -> Result<(), Why> {
    let time = BrokenDownTime::parse(format, sample).map_err(|error| error.to_string())?;
    if time.timestamp().is_some() {
        return Ok(());
    }
    let local = time.to_datetime().map_err(|error| error.to_string())?;
    if local.date() != SAMPLE.date() || time.hour().is_some_and(|hour| hour != SAMPLE.hour()) {
        return Err(format!("{sample} would be read as {local}: does it lack %p?"));
    }
    if time.iana_time_zone().is_some() {
        return Err("the name of a time zone is not read; an offset is, as %z".to_owned());
    }
    if time.offset().is_none() && !has_zone {
        return Err("it has no offset (%z); --timezone tells where its times are from".to_owned());
    }
    Ok(())
}

/// A time without an offset as one of UTC in RFC 3339, and whether it is a date alone. None for other texts.
fn with_utc(text: &str) -> Option<(String, bool)> {
    let clock = text.get(..19).unwrap_or(text);
    let rest = &text[clock.len()..];
    let is_fraction = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    match &values::shape(clock)[..] {
        "0000-00-00" => Some((format!("{text}T00:00:00Z"), true)),
        "0000-00-00T00:00" => Some((format!("{text}:00Z"), false)),
        "0000-00-00T00:00:00" if rest.strip_prefix('.').map_or(rest.is_empty(), is_fraction) => {
            Some((format!("{text}Z"), false))
        }
        _ => None,
    }
}

/// The one moment that was `local` in `zone`; of a date, which is its midnight, the first of the day.
fn resolve(local: DateTime, is_date: bool, zone: &TimeZone) -> Result<Timestamp, Why> {
    let name = zone.iana_name().unwrap_or("this time zone");
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => timestamp(local, offset),
        AmbiguousOffset::Fold { before, .. } if is_date => timestamp(local, before),
        AmbiguousOffset::Gap { .. } if is_date => first_moment(local, zone),
        AmbiguousOffset::Fold { before, after } => {
            Err(format!("{name} had it twice: {} and {}", at(local, before), at(local, after)))
        }
        AmbiguousOffset::Gap { before, after } => Err(format!(
            "{name} never had it, its clocks went forward: {} or {}",
            at(local, before),
            at(local, after)
        )),
    }
}

/// Of a day without a midnight: when the clocks went forward over it. (`Zoned::start_of_day` takes the midnight that
/// clocks show which were not put forward, and that may be later.)
fn first_moment(midnight: DateTime, zone: &TimeZone) -> Result<Timestamp, Why> {
    let after = zone.to_ambiguous_timestamp(midnight).later().map_err(|error| error.to_string())?;
    let change = zone.preceding(after + SignedDuration::from_secs(1)).next();
    let change = change.map(|change| (change.offset().to_datetime(change.timestamp()), change));
    match change {
        Some((local, change)) if local.date() == midnight.date() => {
            timestamp(local, change.offset())
        }
        _ => Err("this time zone never had that day".to_owned()),
    }
}

fn timestamp(local: DateTime, offset: Offset) -> Result<Timestamp, Why> {
    values::timestamp(local, offset.seconds())
        .ok_or_else(|| "in UTC its year is not in 0001 to 9999".to_owned())
}

/// `2010-10-31T02:30:00+02:00`.
fn at(local: DateTime, offset: Offset) -> String {
    let mut time = BrokenDownTime::from(local);
    time.set_offset(Some(offset));
    // OK because there is all that the format asks for.
    time.to_string(RFC_3339).unwrap_or_default()
}

/// Whether the text has a second 60. jiff reads it as 59, so one 60 less comes out than went in.
fn is_leap_second(time: &BrokenDownTime, format: &str, text: &str) -> bool {
    let sixties = |text: &str| text.matches("60").count();
    time.second() == Some(59)
        && time.to_string(format).is_ok_and(|again| sixties(&again) < sixties(text))
}

fn is_serial(text: &str) -> bool {
    let (days, of_day) = text.trim().split_once(['.', ',']).unwrap_or((text.trim(), ""));
    let are_digits = [days, of_day].concat().bytes().all(|byte| byte.is_ascii_digit());
    are_digits && days.parse().is_ok_and(|days| SERIALS.contains(&days))
}
