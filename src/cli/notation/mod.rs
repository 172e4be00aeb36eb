//! How amounts and times are written in a file: the options of import, reconcile and export.

#[cfg(test)]
mod tests;
mod time;

use clap::Args;

pub use billstream::amount::AmountNotation;
pub use time::TimeNotation;

use super::failure::{Failure, Result};

/// How amounts and times are written in the file.
#[derive(Args, Clone, Default)]
pub struct Notation {
    /// The decimal mark, . or , and that amounts are in major units: 12.50 with --decimal . [default: whole
    /// numbers of minor units, 1250]
    #[arg(long, value_name = "CHAR")]
    pub decimal: Option<char>,
    /// What parts the thousands of amounts, one of . , ' or a space: 1.234,50 with --thousands . and
    /// --decimal ,
    #[arg(long, value_name = "CHAR")]
    pub thousands: Option<char>,
    /// The form of times, in the fields of strftime: 31.12.2010 13:59 with '%d.%m.%Y %H:%M' [default: RFC 3339,
    /// 2010-12-31T13:59:00+01:00]
    #[arg(long, value_name = "FORMAT")]
    pub time_format: Option<String>,
    /// Where times without an offset are from, such as Europe/Berlin; a date is the beginning of its day there
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
}

impl Notation {
    /// How amounts are read or written.
    pub fn amounts(&self) -> Result<AmountNotation> {
        AmountNotation::new(self.decimal, self.thousands).map_err(Failure::Usage)
    }

    /// How times are read.
    pub fn times(&self) -> Result<TimeNotation> {
        TimeNotation::new(self.time_format.as_deref(), self.timezone.as_deref())
            .map_err(Failure::Usage)
    }

    /// How times are written.
    pub fn times_out(&self) -> Result<TimeNotation> {
        TimeNotation::writing(self.time_format.as_deref(), self.timezone.as_deref())
            .map_err(Failure::Usage)
    }
}
