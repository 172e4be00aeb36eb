#![no_main]

use billstream::amount::AmountNotation;

const MARKS: [Option<char>; 9] = [
    None,
    Some('.'),
    Some(','),
    Some(' '),
    Some('\u{a0}'),
    Some('\u{202f}'),
    Some('\''),
    Some('\u{2019}'),
    Some(';'),
];
const CURRENCIES: [&str; 6] = ["EUR", "JPY", "KWD", "CLF", "XAU", "none"];

// Two bytes choose the notation, one the currency, and the rest is the text. What is read is in range, and is the
// same when it is written and read again.
libfuzzer_sys::fuzz_target!(|input: (u8, u8, u8, &str)| {
    let (decimal, thousands, currency, text) = input;
    let mark = |byte: u8| MARKS[usize::from(byte) % MARKS.len()];
    let currency = CURRENCIES[usize::from(currency) % CURRENCIES.len()];
    let Ok(notation) = AmountNotation::new(mark(decimal), mark(thousands)) else { return };
    match notation.parse(text, currency) {
        Ok(cents) => {
            assert!(cents.abs() <= 1_000_000_000_000_000, "{cents}");
            let mut again = String::new();
            notation.write(&mut again, cents, currency).unwrap();
            assert_eq!(notation.parse(&again, currency), Ok(cents), "{again}");
        }
        Err(expected) => assert!((10..500).contains(&expected.len()), "{expected}"),
    }
});
