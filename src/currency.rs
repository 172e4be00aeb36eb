//! The currencies of ISO 4217, those that it has withdrawn among them, and their minor digits.

use iso_currency::Currency;

/// How many digits the minor unit of the currency `code` has: 2 for `EUR`, 0 for `JPY`. None when ISO 4217 neither
/// has nor had such a code; it has them in upper case only. What has no minor unit, such as gold (`XAU`), is
/// counted in whole units: 0.
pub fn minor_digits(code: &str) -> Option<u32> {
    let currency = Currency::from_code(code)?;
    Some(u32::from(currency.exponent().unwrap_or(0)))
}
