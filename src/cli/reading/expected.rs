//! What a whole file must come to, so that one that was cut is refused before anything of it is booked.

use std::collections::BTreeMap;

use clap::Args;

use super::super::failure::{Failure, Result};
use super::layout::Layout;

/// What the file must come to, or else nothing of it is booked.
#[derive(Args)]
#[command(next_help_heading = "What the file comes to")]
pub struct ExpectArgs {
    /// The file has so many rows, or it was cut and is refused
    #[arg(long, value_name = "ROWS")]
    expect_rows: Option<u64>,
    /// The amounts of a currency add up to this, such as EUR=123450, or with --decimal . EUR=1234.50; may be
    /// repeated
    #[arg(long, value_name = "CURRENCY=AMOUNT")]
    expect_total: Vec<String>,
}

/// Counts rows, and adds up their amounts.
#[derive(Default, PartialEq)]
pub struct Tally {
    rows: u64,
    totals: BTreeMap<String, i128>,
}

/// What a [`Tally`] must come to.
pub struct Expected {
    rows: Option<u64>,
    /// A currency, its total, and how that was written.
    totals: Vec<(String, i128, String)>,
}

impl ExpectArgs {
    /// What is expected of a file of `layout`.
    pub fn expected(&self, layout: &Layout) -> Result<Expected> {
        let total = |text: &String| {
            let wrong = |why: &str| Failure::Usage(format!("--expect-total {text}: {why}"));
            let (currency, amount) = text
                .split_once('=')
                .ok_or_else(|| wrong("expected a currency, = and an amount"))?;
            let parsed = layout.amounts.parse_sum(amount, currency);
            let total = parsed.map_err(|expected| wrong(&format!("expected {expected}")))?;
            Ok((currency.to_owned(), i128::from(total), amount.to_owned()))
        };
        let totals = self.expect_total.iter().map(total).collect::<Result<_>>()?;
        Ok(Expected { rows: self.expect_rows, totals })
    }
}

impl Tally {
    pub fn add(&mut self, currency: &str, cents: i64) {
        self.rows += 1;
        match self.totals.get_mut(currency) {
            Some(total) => *total += i128::from(cents),
            None => drop(self.totals.insert(currency.to_owned(), i128::from(cents))),
        }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl Expected {
    /// Whether anything is.
    pub fn is_any(&self) -> bool {
        self.rows.is_some() || !self.totals.is_empty()
    }

    /// Fails when the input `name` comes to something else.
    pub fn check(&self, name: &str, tally: &Tally, layout: &Layout) -> Result<()> {
        let mut wrong = Vec::new();
        if let Some(rows) = self.rows.filter(|rows| *rows != tally.rows) {
            wrong.push(format!("{} rows; expected {rows} by --expect-rows", tally.rows));
        }
        for (currency, total, written) in &self.totals {
            let found = tally.totals.get(currency).copied().unwrap_or(0);
            if found != *total {
                let found = write(found, currency, layout);
                wrong.push(format!(
                    "{currency} {found} in all; expected {written} by --expect-total"
                ));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::Usage(format!("{name}: {}: is the file cut?", wrong.join("; ")))),
        }
    }
}

/// In the notation of the file, where that can have it.
fn write(total: i128, currency: &str, layout: &Layout) -> String {
    let mut text = String::new();
    match i64::try_from(total).map(|total| layout.amounts.write(&mut text, total, currency)) {
        Ok(Ok(())) => text,
        _ => format!("{total} cents"),
    }
}
