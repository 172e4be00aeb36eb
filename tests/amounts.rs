//! Amounts as files have them: every currency in twelve notations against values that are made in another way, the
//! parser against a slow model, and the table of docs/files.md. (`fuzz/` looks for what these have not thought of.)

use billstream::amount::AmountNotation;
use billstream::currency::minor_digits;
use proptest::prelude::*;

const MAX: i64 = 1_000_000_000_000_000;

/// What ISO 4217 and OpenJDK say of all that does not have two digits.
const NONE: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF \
    ADP BEF BYB BYR ESP GRD ITL LUF MGF PTE ROL TPE TRL \
    XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX XEU XFO XFU XRE";
const THREE: &str = "BHD IQD JOD KWD LYD OMR TND";
const FOUR: &str = "CLF UYW";

/// Every code that there is, with its digits.
fn currencies() -> Vec<(String, u32)> {
    let letters = || 'A'..='Z';
    let codes =
        letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
    let codes = codes.map(String::from_iter);
    codes.filter_map(|code| minor_digits(&code).map(|digits| (code, digits))).collect()
}

#[test]
fn every_currency_has_the_digits_of_iso_4217() {
    let all = currencies();
    for (code, digits) in &all {
        let has = |list: &str| list.split(' ').any(|other| other == code);
        let expected = match () {
            () if has(NONE) => 0,
            () if has(THREE) => 3,
            () if has(FOUR) => 4,
            () => 2,
        };
        assert_eq!(*digits, expected, "{code}");
    }
    let listed = [NONE, THREE, FOUR].map(|list| list.split(' ').count()).iter().sum::<usize>();
    assert_eq!(all.iter().filter(|(_, digits)| *digits != 2).count(), listed);
    println!("{} currencies", all.len());
    for withdrawn in ["DEM", "FRF", "ITL", "NLG", "HRK", "BGN", "ANG", "YUM", "ZWD", "SUR"] {
        assert!(minor_digits(withdrawn).is_some(), "{withdrawn}");
    }
    for none in ["", "eur", "Eur", "EU", "EURO", "ZZZ", "BTC", "RMB", "EUR "] {
        assert_eq!(minor_digits(none), None, "{none}");
    }
}

/// A way to write amounts, by its marks and what is around a negative one.
struct Style {
    decimal: char,
    /// What the option has, and what the file has.
    thousands: Option<(char, char)>,
    negative: (&'static str, &'static str),
}

const fn style(
    decimal: char,
    thousands: Option<(char, char)>,
    negative: (&'static str, &'static str),
) -> Style {
    Style { decimal, thousands, negative }
}

const STYLES: [Style; 12] = [
    style('.', None, ("-", "")),
    style(',', None, ("-", "")),
    style('.', Some((',', ',')), ("-", "")),
    style(',', Some(('.', '.')), ("", "-")),
    style(',', Some((' ', ' ')), ("-", "")),
    style(',', Some((' ', '\u{a0}')), ("\u{2212}", "")),
    style(',', Some((' ', '\u{202f}')), ("- ", "")),
    style('.', Some(('\u{a0}', ' ')), ("", "\u{2212}")),
    style('.', Some(('\'', '\'')), ("-", "")),
    style('.', Some(('\'', '\u{2019}')), (" -", " ")),
    style('.', Some((',', ',')), ("(", ")")),
    style(',', Some(('.', '.')), (" ( ", " ) ")),
];

impl Style {
    fn notation(&self) -> AmountNotation {
        AmountNotation::new(Some(self.decimal), self.thousands.map(|(option, _)| option)).unwrap()
    }

    /// Division of whole numbers, where the parser moves digits.
    fn write(&self, cents: i64, digits: u32) -> String {
        let (whole, fraction) = (cents.abs() / 10i64.pow(digits), cents.abs() % 10i64.pow(digits));
        let mut text = self.group(whole);
        if digits > 0 {
            text += &format!("{}{fraction:01$}", self.decimal, digits as usize);
        }
        match cents < 0 {
            true => format!("{}{text}{}", self.negative.0, self.negative.1),
            false => text,
        }
    }

    fn group(&self, whole: i64) -> String {
        match self.thousands {
            Some((_, separator)) if whole >= 1000 => {
                format!("{}{separator}{:03}", self.group(whole / 1000), whole % 1000)
            }
            _ => whole.to_string(),
        }
    }
}

#[test]
fn every_currency_is_read_in_twelve_notations_or_refused_with_the_reason() {
    let mut read = 0;
    for (code, digits) in currencies() {
        for style in &STYLES {
            let notation = style.notation();
            for cents in
                [0, 1, 9, 10, 99, 100, 12_345, 999_999, 1_000_000, 123_456_789_012_345, MAX]
            {
                for cents in [cents, -cents] {
                    let text = style.write(cents, digits);
                    assert_eq!(notation.parse(&text, &code), Ok(cents), "{text} {code}");
                    read += 1;
                }
            }
            assert_refused(style, &code, digits);
        }
    }
    println!("{read} amounts");
}

/// Nothing of what is almost an amount in this notation is read, and each has its reason.
fn assert_refused(style: &Style, code: &str, digits: u32) {
    let text = style.write(123_456_789, digits);
    let mark = if digits == 0 { style.decimal.to_string() } else { String::new() };
    let other = if style.decimal == '.' { ',' } else { '.' };
    let separator = style.thousands.map(|(_, separator)| separator);
    let too_exact = match digits {
        0 => format!("{code} has no minor unit, and nothing is rounded"),
        _ => format!("{code} has {digits} digits after the decimal mark, and nothing is rounded"),
    };
    let other_mark = match separator {
        Some(separator) if separator == other => "thousands are parted".to_owned(),
        Some(_) => format!("{other:?} is neither a digit nor what --decimal and --thousands tell"),
        None => format!("{other:?} is not the decimal mark"),
    };
    for (text, why) in [
        (format!("{text}{mark}1"), &too_exact[..]),
        (format!("{text}{mark}01"), &too_exact),
        (format!("12{other}5"), &other_mark),
        (style.write(MAX + 1, digits), "1000000000000000 minor units are the most"),
        (style.write(-MAX - 1, digits), "1000000000000000 minor units are the most"),
        (format!("{text}{code}"), "the currency is a column of its own"),
        (format!("€{text}"), "'€' is no digit; the currency is a column of its own"),
        (format!("--{text}"), "it has more than one sign"),
        (format!("1{0}2{0}3", style.decimal), "it has two decimal marks"),
        ("  ".to_owned(), "it is empty"),
        ("-".to_owned(), "it has no digit"),
        ("(".to_owned(), "it has one parenthesis"),
        ("1e3".to_owned(), "with an exponent"),
        ("\u{661}\u{662}".to_owned(), "is neither a digit nor"),
        (format!("12{}", style.decimal), "nothing follows the decimal mark"),
    ] {
        let refusal = style.notation().parse(&text, code).expect_err(&text);
        assert!(
            refusal.starts_with("an amount such as ") && refusal.contains(why),
            "{text}: {refusal}"
        );
    }
    if let Some(separator) = separator {
        assert_groups(style, code, separator);
    }
}

fn assert_groups(style: &Style, code: &str, separator: char) {
    let refusal = |text: &str| {
        let text =
            text.replace("{}", &separator.to_string()).replace('!', &style.decimal.to_string());
        style.notation().parse(&text, code).expect_err(&text)
    };
    // A space before a number parts nothing.
    let first = if separator.is_whitespace() { "1{}1" } else { "{}123" };
    for text in [first, "1{}23", "1{}{}123", "1234{}567", "1{}234{}56", "12{}34{}567", "123{}!0"] {
        let refusal = refusal(text);
        assert!(refusal.contains("thousands are parted in groups of three"), "{text}: {refusal}");
    }
    for text in ["0{}123", "01{}234", "0{}123!0"] {
        let refusal = refusal(text);
        assert!(refusal.contains("0 before thousands"), "{text}: {refusal}");
    }
    let refusal = refusal("1!234{}567");
    assert!(refusal.contains("thousands are parted after the decimal mark"), "{refusal}");
}

#[test]
fn an_amount_is_written_as_it_is_asked_for() {
    for (decimal, thousands, cents, currency, expected) in [
        (None, None, -1_234_567, "EUR", "-1234567"),
        (Some('.'), None, 1_234_567, "EUR", "12345.67"),
        (Some(','), Some('.'), -123_456_789, "EUR", "-1.234.567,89"),
        (Some(','), Some(' '), 99_999, "EUR", "999,99"),
        (Some('.'), Some('\''), 5, "EUR", "0.05"),
        (Some('.'), None, 0, "EUR", "0.00"),
        (Some('.'), Some(','), -1_234_567, "JPY", "-1,234,567"),
        (Some('.'), None, -1, "KWD", "-0.001"),
        (Some('.'), None, i64::MIN, "CLF", "-922337203685477.5808"),
        (None, None, i64::MIN, "none", "-9223372036854775808"),
    ] {
        let mut out = String::from("x");
        let notation = AmountNotation::new(decimal, thousands).unwrap();
        notation.write(&mut out, cents, currency).unwrap();
        assert_eq!(out, format!("x{expected}"));
    }
    let notation = AmountNotation::new(Some('.'), None).unwrap();
    let unknown = notation.write(&mut String::new(), 1, "ABC").unwrap_err();
    assert_eq!(unknown, "\"ABC\" is no currency that is known here");
}

#[test]
fn options_that_would_leave_a_guess_are_refused() {
    for (decimal, thousands, message) in [
        (Some(';'), None, "--decimal ';': expected . or ,"),
        (Some(' '), None, "--decimal ' ': expected . or ,"),
        (Some('.'), Some('_'), "--thousands '_': expected one of . , ' or a space"),
        (Some('.'), Some('.'), "--decimal and --thousands are both '.'"),
        (None, Some(','), "--thousands is of amounts in major units: --decimal tells which"),
    ] {
        let refusal = AmountNotation::new(decimal, thousands).unwrap_err();
        assert!(refusal.starts_with(message), "{refusal}");
    }
}

/// Reads as the parser should, but by making every number again that it believes to have seen.
fn model(
    text: &str,
    (decimal, thousands): (Option<char>, Option<char>),
    digits: u32,
) -> Option<i64> {
    let class = |separator: char| {
        [" \u{a0}\u{202f}\u{2009}", "'\u{2019}", ".", ","]
            .into_iter()
            .find(|class| class.contains(separator))
    };
    let is_space = |c: char| " \u{a0}\u{202f}\u{2009}".contains(c);
    let Some(decimal) = decimal else {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        return is_number.then(|| text.parse::<i64>().ok())?.filter(|cents| cents.abs() <= MAX);
    };
    let forms = [
        ("", "", 1),
        ("+", "", 1),
        ("-", "", -1),
        ("\u{2212}", "", -1),
        ("", "-", -1),
        ("", "\u{2212}", -1),
        ("(", ")", -1),
    ];
    forms.into_iter().find_map(|(before, after, sign)| {
        let number = text
            .trim_matches(is_space)
            .strip_prefix(before)?
            .strip_suffix(after)?
            .trim_matches(is_space);
        let separators = thousands.and_then(class).unwrap_or_default();
        let plain: String =
            number.chars().map(|c| if separators.contains(c) { '_' } else { c }).collect();
        let (whole, fraction) =
            plain.split_once(decimal).map_or((&plain[..], None), |(w, f)| (w, Some(f)));
        let joined = whole.replace('_', "");
        let fraction_digits = fraction.unwrap_or("");
        let all = format!("{joined}{fraction_digits}");
        let are_digits = !all.is_empty() && all.chars().all(|c| c.is_ascii_digit());
        if !are_digits || fraction == Some("") || (whole != joined && grouped(&joined) != whole) {
            return None;
        }
        let (exact, per) = (
            all.parse::<i128>().ok()? * 10i128.pow(digits),
            10i128.pow(fraction_digits.len() as u32),
        );
        (exact % per == 0 && exact / per <= i128::from(MAX)).then_some(sign * (exact / per) as i64)
    })
}

/// `1_234` of `1234`; nothing that `0123` is equal to.
fn grouped(digits: &str) -> String {
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    if digits.starts_with('0') {
        String::new()
    } else {
        groups.join("_")
    }
}

fn options() -> impl Strategy<Value = (Option<char>, Option<char>)> {
    let thousands =
        prop::option::of(prop::sample::select(vec!['.', ',', ' ', '\'', '\u{a0}', '\u{2019}']));
    let decimal = prop::option::of(prop::sample::select(vec!['.', ',']));
    (decimal, thousands)
        .prop_filter("no such notation", |(d, t)| AmountNotation::new(*d, *t).is_ok())
}

fn currency() -> impl Strategy<Value = (String, u32)> {
    prop::sample::select(currencies())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_it_was(
        cents in prop_oneof![-MAX..=MAX, -100_000..100_000i64], (currency, _) in currency(), (decimal, thousands) in options(),
    ) {
        let notation = AmountNotation::new(decimal, thousands).unwrap();
        let mut text = String::new();
        notation.write(&mut text, cents, &currency).unwrap();
        prop_assert_eq!(notation.parse(&text, &currency), Ok(cents), "{}", text);
    }

    #[test]
    fn any_text_is_read_as_the_model_reads_it(
        text in prop_oneof![
            "[-+(\u{2212} ]?[ ]?[0-9]{0,3}([.,' \u{a0}\u{2019}][0-9]{3}){0,3}([.,][0-9]{0,6})?[-) \u{2212}]?[ ]?",
            "[-+(]?[0-9]{0,17}[.,]?[0-9]{0,5}",
            "[0-9.,' ()+\u{2212}\u{a0}eE€-]{0,8}",
            "\\PC{0,6}",
        ],
        (currency, digits) in currency(), (decimal, thousands) in options(),
    ) {
        let notation = AmountNotation::new(decimal, thousands).unwrap();
        let expected = model(&text, (decimal, thousands), digits);
        prop_assert_eq!(notation.parse(&text, &currency).ok(), expected, "{:?}", text);
    }
}

/// The character after an option, between quotes where the shell needs them.
fn option(options: &str, name: &str) -> Option<char> {
    let value = options.split_once(name)?.1.strip_prefix(' ')?;
    let is_quoted =
        value.len() > 2 && ["' '", "\"'\""].iter().any(|quoted| value.starts_with(quoted));
    value.chars().nth(usize::from(is_quoted))
}

#[test]
fn the_table_of_the_documentation_is_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/files.md");
    let page = std::fs::read_to_string(path).unwrap();
    let table = page.split("| options | currency |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let [options, currency, text, expected] = cells[..] else { panic!("{row}") };
        let notation =
            AmountNotation::new(option(options, "--decimal"), option(options, "--thousands"))
                .unwrap();
        let text = text.split('`').nth(1).unwrap();
        let read = notation.parse(text, currency.trim());
        match expected.trim().strip_prefix("refused: ") {
            Some(why) => assert!(read.clone().unwrap_err().contains(why), "{row}: {read:?}"),
            None => assert_eq!(read, Ok(expected.trim().parse().unwrap()), "{row}"),
        }
        count += 1;
    }
    assert!(count > 30, "{count} rows");
}
