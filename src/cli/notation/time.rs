//! Times as files have them: in RFC 3339, or in a format and a time zone of their own.

use jiff::tz::TimeZone;
use protobuf::well_known_types::timestamp::Timestamp;

use crate::cli::values;

/// How the times of a file are written.
#[derive(Clone, Debug, Default)]
pub struct TimeNotation {
    /// None: RFC 3339.
    format: Option<String>,
    zone: Option<TimeZone>,
}

impl TimeNotation {
    /// Times in `format`, in the fields of strftime, and where it has no offset in the time zone named `zone`. The
    /// error says what is wrong with the two.
    pub fn new(format: Option<&str>, zone: Option<&str>) -> Result<TimeNotation, String> {
        let zone = zone.map(TimeZone::get).transpose().map_err(|error| error.to_string())?;
        Ok(TimeNotation { format: format.map(str::to_owned), zone })
    }

    /// Reads a time. The error is what was expected, and why this is not it.
    pub fn parse(&self, text: &str) -> Result<Timestamp, String> {
        values::time(text)
    }

    /// Writes a time. Fails where the format or the zone cannot have it.
    pub fn write(
        &self,
        out: &mut String,
        time: billstream::model::Timestamp,
    ) -> Result<(), String> {
        values::write_time(out, time);
        Ok(())
    }
}
