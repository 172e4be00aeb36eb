//! Amounts as files have them: in major units with a decimal mark, or in minor units as this server does.

use crate::currency::minor_digits;
use crate::model::MAX_AMOUNT_CENTS;

/// How the amounts of a file are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AmountNotation {
    /// None: amounts are whole numbers of minor units.
    decimal: Option<char>,
    thousands: Option<char>,
}

impl AmountNotation {
    /// Amounts in major units with the decimal mark `decimal`, and groups of three digits that `thousands` may
    /// part; without `decimal`, whole numbers of minor units. The error says what is wrong with the two.
    pub fn new(decimal: Option<char>, thousands: Option<char>) -> Result<AmountNotation, String> {
        match (decimal, thousands) {
            (None, Some(_)) => Err("--thousands needs --decimal".to_owned()),
            (Some(a), Some(b)) if a == b => {
                Err("--decimal and --thousands are the same".to_owned())
            }
            _ => Ok(AmountNotation { decimal, thousands }),
        }
    }

    /// Whether amounts are whole numbers of minor units.
    pub fn is_minor(&self) -> bool {
        self.decimal.is_none()
    }

    /// Reads an amount of `currency` as its number of minor units. The error is what was expected, and why this is
    /// not it.
    pub fn parse(&self, text: &str, currency: &str) -> Result<i64, String> {
        let Some(decimal) = self.decimal else {
            return text.parse().map_err(|_| "a whole number of cents".to_owned());
        };
        let digits = minor_digits(currency).ok_or("an amount of a known currency")?;
        let expected = || "an amount such as 1234.50".to_owned();
        let plain: String = text.chars().filter(|&c| Some(c) != self.thousands).collect();
        let (whole, fraction) = plain.split_once(decimal).unwrap_or((&plain, ""));
        if fraction.len() > digits as usize {
            return Err(expected());
        }
        let cents: i64 = format!("{whole}{fraction:0<width$}", width = digits as usize)
            .parse()
            .map_err(|_| expected())?;
        match cents.abs() <= MAX_AMOUNT_CENTS {
            true => Ok(cents),
            false => Err(expected()),
        }
    }

    /// Writes `cents` minor units of `currency`. Fails in major units of a currency that is not known here, whose
    /// minor digits nobody can tell.
    pub fn write(&self, out: &mut String, cents: i64, currency: &str) -> Result<(), String> {
        let Some(decimal) = self.decimal else {
            out.push_str(&cents.to_string());
            return Ok(());
        };
        let digits = minor_digits(currency).ok_or("the currency is not known")? as usize;
        let all = format!("{:0>1$}", cents.unsigned_abs(), digits + 1);
        let (whole, fraction) = all.split_at(all.len() - digits);
        if cents < 0 {
            out.push('-');
        }
        for (i, digit) in whole.char_indices() {
            let is_group = i > 0 && (whole.len() - i).is_multiple_of(3);
            out.extend(self.thousands.filter(|_| is_group));
            out.push(digit);
        }
        if !fraction.is_empty() {
            out.push(decimal);
            out.push_str(fraction);
        }
        Ok(())
    }
}
