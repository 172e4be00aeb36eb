//! Amounts as files have them: in major units with a decimal mark, or in minor units as this server does.
//!
//! Digits are moved and never calculated with as fractions. What could be read in two ways is refused.

use crate::currency::minor_digits;
use crate::error::quoted;
use crate::model::MAX_AMOUNT_CENTS;

/// What may be a decimal mark.
const DECIMALS: &[char] = &['.', ','];
/// What may part thousands. Those on a line are the same to a reader: a file may have any of them.
const THOUSANDS: &[&[char]] =
    &[&['.'], &[','], &[' ', '\u{a0}', '\u{202f}', '\u{2009}'], &['\'', '\u{2019}']];
/// Of a hyphen, and of a real minus sign.
const MINUS: &[char] = &['-', '\u{2212}'];

/// How the amounts of a file are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AmountNotation {
    /// None: amounts are whole numbers of minor units.
    decimal: Option<char>,
    thousands: Option<char>,
}

impl AmountNotation {
    /// Amounts in major units with the decimal mark `decimal`, whose thousands may be parted by `thousands`;
    /// without `decimal`, whole numbers of minor units. The error says which of the two options is wrong.
    pub fn new(decimal: Option<char>, thousands: Option<char>) -> Result<AmountNotation, String> {
        if let Some(wrong) = decimal.filter(|mark| !DECIMALS.contains(mark)) {
            return Err(format!("--decimal {wrong:?}: expected . or ,"));
        }
        let Some(separator) = thousands else { return Ok(AmountNotation { decimal, thousands }) };
        if alike(separator).is_empty() {
            let expected = "expected one of . , ' or a space";
            return Err(format!("--thousands {separator:?}: {expected}"));
        }
        match decimal {
            None => Err("--thousands is of amounts in major units: --decimal tells which they are"
                .to_owned()),
            Some(mark) if mark == separator => Err(format!(
                "--decimal and --thousands are both {mark:?}: an amount could be read in two ways"
            )),
            Some(_) => Ok(AmountNotation { decimal, thousands }),
        }
    }

    /// Whether amounts are whole numbers of minor units.
    pub fn is_minor(&self) -> bool {
        self.decimal.is_none()
    }

    /// Reads an amount of `currency` as its number of minor units, at most [`MAX_AMOUNT_CENTS`] on either side of
    /// zero. The error is what was expected, and why `text` is not it.
    pub fn parse(&self, text: &str, currency: &str) -> Result<i64, String> {
        self.parse_within(text, currency, MAX_AMOUNT_CENTS)
    }

    /// The same of a sum of amounts, which may be all that 64 bits hold.
    pub fn parse_sum(&self, text: &str, currency: &str) -> Result<i64, String> {
        self.parse_within(text, currency, i64::MAX)
    }

    fn parse_within(&self, text: &str, currency: &str, max: i64) -> Result<i64, String> {
        let Some(decimal) = self.decimal else { return parse_minor(text, max) };
        let Some(digits) = minor_digits(currency) else {
            let currency = quoted(currency);
            return Err(format!("an amount of a currency of ISO 4217, which has the number of its digits ({currency} is none)"));
        };
        let number =
            Number { decimal, thousands: self.thousands, currency, digits: digits as usize, max };
        number.parse(text).map_err(|why| {
            let mut expected = "an amount such as ".to_owned();
            // OK because the digits of this currency are known.
            let _ = self.write(&mut expected, 12_345 * 10i64.pow(digits) / 10, currency);
            format!("{expected} ({why})")
        })
    }

    /// Writes `cents` minor units of `currency`, with all of its digits. Fails in major units of a currency that is
    /// not known here: nobody can tell where its decimal mark belongs.
    pub fn write(&self, out: &mut String, cents: i64, currency: &str) -> Result<(), String> {
        let Some(decimal) = self.decimal else {
            out.push_str(&cents.to_string());
            return Ok(());
        };
        let digits = minor_digits(currency)
            .ok_or_else(|| format!("{} is no currency that is known here", quoted(currency)))?;
        let digits = digits as usize;
        let all = format!("{:0>1$}", cents.unsigned_abs(), digits + 1);
        let (whole, fraction) = all.split_at(all.len() - digits);
        if cents < 0 {
            out.push('-');
        }
        for (i, digit) in whole.char_indices() {
            let is_group = i > 0 && (whole.len() - i) % 3 == 0;
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

/// Those that part thousands as `separator` does; none when it cannot.
fn alike(separator: char) -> &'static [char] {
    THOUSANDS.iter().find(|alike| alike.contains(&separator)).copied().unwrap_or_default()
}

fn parse_minor(text: &str, max: i64) -> Result<i64, String> {
    let cents = text.parse().ok();
    if let Some(cents) = cents.filter(|it: &i64| it.unsigned_abs() <= max as u64) {
        return Ok(cents);
    }
    let expected = "a whole number of cents";
    Err(match cents {
        Some(_) => format!("{expected} ({max} are the most)"),
        None if text.contains(DECIMALS) && text.contains(|c: char| c.is_ascii_digit()) => {
            format!("{expected} (--decimal tells the decimal mark of amounts in major units)")
        }
        None => expected.to_owned(),
    })
}

/// How an amount in major units of one currency is written.
struct Number<'a> {
    decimal: char,
    thousands: Option<char>,
    currency: &'a str,
    /// Of its minor unit.
    digits: usize,
    /// The most of it.
    max: i64,
}

/// Why a text is no such amount.
type Why = String;

impl Number<'_> {
    fn parse(&self, text: &str) -> Result<i64, Why> {
        let (is_negative, number) = split_sign(text)?;
        if !number.chars().all(|c| self.has(c)) {
            return Err(self.why_not(number));
        }
        let (whole, fraction) = match number.split_once(self.decimal) {
            Some((_, "")) => return Err("nothing follows the decimal mark".to_owned()),
            Some(parts) => parts,
            None => (number, ""),
        };
        if fraction.contains(self.decimal) {
            return Err("it has two decimal marks".to_owned());
        }
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("thousands are parted after the decimal mark".to_owned());
        }
        self.check_groups(whole)?;
        let cents = self.to_minor(whole, fraction)?;
        Ok(if is_negative { -cents } else { cents })
    }

    /// Whether a number may have `c`, wherever.
    fn has(&self, c: char) -> bool {
        c.is_ascii_digit() || c == self.decimal || self.parts_thousands(c)
    }

    fn parts_thousands(&self, c: char) -> bool {
        self.thousands.is_some_and(|separator| alike(separator).contains(&c))
    }

    /// What a number has that it may not have: of a currency first, which is more than its spaces.
    fn why_not(&self, number: &str) -> Why {
        let foreign = || number.char_indices().filter(|&(_, c)| !self.has(c));
        let of_currency = foreign().find(|&(_, c)| c.is_alphabetic() || is_symbol(c));
        let Some((i, c)) = of_currency.or_else(|| foreign().next()) else { return Why::new() };
        let is_exponent = matches!(c, 'e' | 'E')
            && number[..i].ends_with(|c: char| c.is_ascii_digit())
            && number[i + 1..].starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c));
        if is_exponent {
            "with an exponent it may have lost digits: they must be written out".to_owned()
        } else if of_currency.is_some() {
            format!("{c:?} is no digit; the currency is a column of its own")
        } else if MINUS.contains(&c) || "()+".contains(c) {
            "it has more than one sign".to_owned()
        } else if self.thousands.is_none() && !alike(c).is_empty() {
            format!("{c:?} is not the decimal mark; --thousands tells what parts thousands")
        } else {
            format!("{c:?} is neither a digit nor what --decimal and --thousands tell")
        }
    }

    /// Holds `1,234,567` to its groups; `1234567` has none.
    fn check_groups(&self, whole: &str) -> Result<(), Why> {
        let mut groups = whole.split(|c| self.parts_thousands(c));
        let first = groups.next().unwrap_or_default();
        if first.len() == whole.len() {
            return Ok(());
        }
        if first.starts_with('0') {
            return Err("0 before thousands: is what parts them the decimal mark?".to_owned());
        }
        match (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3) {
            true => Ok(()),
            false => Err("thousands are parted in groups of three digits".to_owned()),
        }
    }

    fn to_minor(&self, whole: &str, fraction: &str) -> Result<i64, Why> {
        if whole.is_empty() && fraction.is_empty() {
            return Err("it has no digit".to_owned());
        }
        let (kept, beyond) = fraction.split_at_checked(self.digits).unwrap_or((fraction, ""));
        if beyond.bytes().any(|digit| digit != b'0') {
            return Err(self.too_exact());
        }
        let whole = whole.bytes().filter(u8::is_ascii_digit);
        let filled = std::iter::repeat_n(b'0', self.digits - kept.len());
        let cents = whole.chain(kept.bytes()).chain(filled).try_fold(0i64, |cents, digit| {
            let cents = cents.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
            (cents <= self.max).then_some(cents)
        });
        cents.ok_or_else(|| format!("{} minor units are the most", self.max))
    }

    fn too_exact(&self) -> Why {
        let Number { currency, digits, .. } = self;
        match digits {
            0 => format!("{currency} has no minor unit, and nothing is rounded"),
            _ => format!(
                "{currency} has {digits} digits after the decimal mark, and nothing is rounded"
            ),
        }
    }
}

/// Whether an amount is negative, and the number without its sign, and without the spaces that programs put around
/// both to align a column.
fn split_sign(text: &str) -> Result<(bool, &str), Why> {
    let text = trim(text);
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(inner) = text.strip_prefix('(') {
        let inner = inner.strip_suffix(')').ok_or("it has one parenthesis")?;
        return Ok((true, trim(inner)));
    }
    if let Some(number) = text.strip_prefix(MINUS).or_else(|| text.strip_suffix(MINUS)) {
        return Ok((true, trim(number)));
    }
    Ok((false, trim(text.strip_prefix('+').unwrap_or(text))))
}

fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| alike(' ').contains(&c))
}

/// Of a currency: those of ASCII and Latin-1, and the block of Unicode.
fn is_symbol(c: char) -> bool {
    matches!(c, '$' | '\u{a2}'..='\u{a5}' | '\u{20a0}'..='\u{20cf}')
}
