//! How amounts and times are written in a file: the options of import, reconcile and export.

mod time;

use clap::Args;

pub use billstream::amount::AmountNotation;
pub use time::TimeNotation;

/// How amounts and times are written in the file.
#[derive(Args)]
pub struct Notation {
    /// Amounts are in major units with this decimal mark, such as 12.50 with --decimal . [default: whole
    /// numbers of minor units, such as 1250]
    #[arg(long, value_name = "CHAR")]
    pub decimal: Option<char>,
    /// What may part the thousands of an amount, such as 1.234,50 with --decimal , --thousands .
    #[arg(long, value_name = "CHAR")]
    pub thousands: Option<char>,
    /// How times are written, in the fields of strftime: %d.%m.%Y for 31.12.2010 [default: RFC 3339]
    #[arg(long, value_name = "FORMAT")]
    pub time_format: Option<String>,
    /// Where times without an offset are from, such as Europe/Berlin; a date is its midnight there
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
}
