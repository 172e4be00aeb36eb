//! Records of a csv, strictly as RFC 4180 has them, with either line end.
//!
//! The csv crate reads what is wrong as best it can. Here that would be a guess about someone's
//! money: `"5" pipe"` would be stored as `5 pipe"`, and a `\r` become part of an id.

use std::io::BufRead;
use std::mem::take;

use super::{too_long, Wrong, MAX_ROW_BYTES};

/// Reads one record after the other.
pub struct Records<R> {
    input: R,
    delimiter: u8,
    /// The line that the next byte is on.
    next_line: u64,
    record: Record,
}

/// The record at hand.
#[derive(Default)]
struct Record {
    /// Its fields without their quotes, one after the other.
    text: Vec<u8>,
    /// Where each field ends in `text`.
    ends: Vec<usize>,
    /// A field is quoted, and so there even when it is empty.
    quoted: bool,
    /// Line feeds in it, with that of its end.
    line_feeds: u64,
    /// Bytes read for it.
    bytes: u64,
    /// The input ended before its line did.
    unended: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field: its end, or the first of two.
    AfterQuote,
    /// After a carriage return outside of quotes: a line feed must follow.
    AfterCr,
    End,
}

impl<R: BufRead> Records<R> {
    /// Reads `input`, whose first byte is on line `line`, with `delimiter` between its fields: an ASCII character
    /// that is neither a quote nor of a line end.
    pub fn new(input: R, delimiter: u8, line: u64) -> Records<R> {
        Records { input, delimiter, next_line: line, record: Record::default() }
    }

    /// Goes to the next record that is not a blank line, and sets `line` to where it begins; false when
    /// there is none.
    pub fn advance(&mut self, line: &mut u64) -> Result<bool, Wrong> {
        loop {
            *line = self.next_line;
            if !self.read()? {
                return Ok(false);
            }
            self.next_line += self.record.line_feeds;
            if self.len() > 1 || self.record.quoted || !self.record.text.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Fields of the record at hand.
    pub fn len(&self) -> usize {
        self.record.ends.len()
    }

    /// The field `i` of the record at hand.
    pub fn field(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.record.ends[i - 1] };
        &self.record.text[start..self.record.ends[i]]
    }

    /// The input ended in the middle of the last line, as that of a cut file does.
    pub fn is_unended(&self) -> bool {
        self.record.unended
    }

    /// Whether no field of the record has a byte.
    pub fn is_empty(&self) -> bool {
        self.record.text.is_empty()
    }

    fn read(&mut self) -> Result<bool, Wrong> {
        self.record.clear();
        let mut state = State::FieldStart;
        while state != State::End {
            let buffer = fill(&mut self.input)?;
            if buffer.is_empty() {
                return self.record.end_of_input(state);
            }
            let mut used = 0;
            for &byte in buffer {
                used += 1;
                state = self.record.step(state, byte, self.delimiter)?;
                if state == State::End {
                    break;
                }
            }
            self.input.consume(used);
            self.record.bytes += used as u64;
            if self.record.bytes > MAX_ROW_BYTES {
                return Err(too_long());
            }
        }
        Ok(true)
    }
}

/// The bytes at hand; none at the end of the input.
pub fn fill(input: &mut impl BufRead) -> std::io::Result<&[u8]> {
    // A signal is no end. (Asked twice, because a buffer cannot be returned out of a loop.)
    while let Err(error) = input.fill_buf() {
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    input.fill_buf()
}

impl Record {
    fn clear(&mut self) {
        let (mut text, mut ends) = (take(&mut self.text), take(&mut self.ends));
        text.clear();
        ends.clear();
        *self = Record { text, ends, ..Record::default() };
    }

    fn step(&mut self, state: State, byte: u8, delimiter: u8) -> Result<State, Wrong> {
        use State::*;
        self.line_feeds += u64::from(byte == b'\n');
        Ok(match (state, byte) {
            (Quoted, b'"') => AfterQuote,
            (Quoted, _) | (AfterQuote, b'"') => self.keep(byte, Quoted),
            (AfterCr, b'\n') => self.end_field(End),
            (AfterCr, _) => return Err(Wrong::input(LONE_CR)),
            (_, byte) if byte == delimiter => self.end_field(FieldStart),
            (_, b'\n') => self.end_field(End),
            (_, b'\r') => AfterCr,
            (AfterQuote, _) => return Err(Wrong::input(AFTER_QUOTE)),
            (FieldStart, b'"') => {
                self.quoted = true;
                Quoted
            }
            // A quote in the middle of a field without quotes is a character like any other: an inch.
            (FieldStart | Unquoted | End, _) => self.keep(byte, Unquoted),
        })
    }

    fn keep(&mut self, byte: u8, state: State) -> State {
        self.text.push(byte);
        state
    }

    fn end_field(&mut self, state: State) -> State {
        self.ends.push(self.text.len());
        state
    }

    /// False when there was no byte of a record.
    fn end_of_input(&mut self, state: State) -> Result<bool, Wrong> {
        if state == State::Quoted {
            return Err(Wrong::input("a quoted field without its end: is the file cut?"));
        }
        if self.bytes == 0 {
            return Ok(false);
        }
        self.unended = state != State::AfterCr;
        self.ends.push(self.text.len());
        Ok(true)
    }
}

const LONE_CR: &str = "a carriage return without a line feed: \
                       lines end in LF or CR LF, and a field that holds either is quoted";
const AFTER_QUOTE: &str = "a quoted field goes on after its closing quote: \
                           a quote inside of it is written twice, as \"\"";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    /// The line and the fields of each record, or the line and message of what is wrong.
    type Found = Result<Vec<(u64, Vec<String>)>, (u64, String)>;

    fn records(text: &str, buffered: usize) -> Found {
        let input = BufReader::with_capacity(buffered, text.as_bytes());
        let mut records = Records::new(input, b',', 1);
        let (mut all, mut line) = (Vec::new(), 0);
        loop {
            match records.advance(&mut line) {
                Ok(true) => {}
                Ok(false) => return Ok(all),
                Err(Wrong::Input(wrong)) => return Err((line, wrong.message)),
                Err(Wrong::Row(_)) => unreachable!("a record is not told what it should be"),
                Err(Wrong::Io(error)) => panic!("{error}"),
            }
            let text = |i| String::from_utf8(records.field(i).to_vec()).unwrap();
            all.push((line, (0..records.len()).map(text).collect()));
        }
    }

    fn read(text: &str) -> Found {
        let found = records(text, 7);
        assert_eq!(records(text, 1), found, "{text:?}");
        found
    }

    #[track_caller]
    fn assert_fields(text: &str, expected: &[(u64, &[&str])]) {
        let owned = |fields: &[&str]| fields.iter().map(|field| field.to_string()).collect();
        let expected = expected.iter().map(|&(line, fields)| (line, owned(fields))).collect();
        assert_eq!(read(text), Ok(expected), "{text:?}");
    }

    #[test]
    fn each_line_may_have_its_own_end() {
        let expected: &[(u64, &[&str])] = &[(1, &["a", "b"]), (2, &["c", "d"]), (3, &["e", ""])];
        for ends in 0..27 {
            let end = |i: u32| ["\n", "\r\n", ""][ends / 3usize.pow(i) % 3];
            if end(0).is_empty() || end(1).is_empty() {
                continue;
            }
            assert_fields(&format!("a,b{}c,d{}e,{}", end(0), end(1), end(2)), expected);
            assert_fields(&format!("a,\"b\"{}\"c\",d{}e,\"\"{}", end(0), end(1), end(2)), expected);
        }
        assert_fields("a,b\r", &[(1, &["a", "b"])]);
    }

    #[test]
    fn blank_lines_are_no_records_and_are_counted() {
        assert_fields(
            "\n\r\na\n\n\n\"\nb\"\r\n\r\nc\n\n",
            &[(3, &["a"]), (6, &["\nb"]), (9, &["c"])],
        );
        assert_fields("", &[]);
        assert_fields("\n", &[]);
        assert_fields(",\n\"\"\n\"\"", &[(1, &["", ""]), (2, &[""]), (3, &[""])]);
    }

    #[test]
    fn quotes_are_read_as_they_are_written() {
        assert_fields("5\" pipe,x\"", &[(1, &["5\" pipe", "x\""])]);
        assert_fields("\"5\"\" pipe\",\"\"\"\"", &[(1, &["5\" pipe", "\""])]);
        assert_fields("\"a,\r\nb\rc\",d\\\"e", &[(1, &["a,\r\nb\rc", "d\\\"e"])]);
        assert_fields("\"a\\\"\n \"b\"\n", &[(1, &["a\\"]), (2, &[" \"b\""])]);
    }

    #[test]
    fn what_would_be_a_guess_is_refused_with_its_line() {
        for (text, line, message) in [
            ("a\nb,\"5\" pipe\"\n", 2, AFTER_QUOTE),
            ("a\n\"Widget \\\"pro\\\" kit\"\n", 2, AFTER_QUOTE),
            ("a\n\"b\" \n", 2, AFTER_QUOTE),
            ("a\nb\rc\n", 2, LONE_CR),
            ("a\rb\rc\r", 1, LONE_CR),
            ("a\n\"b\"\r\r\n", 2, LONE_CR),
            ("a\n\n\"b\nc\n", 3, "a quoted field without its end: is the file cut?"),
        ] {
            assert_eq!(read(text), Err((line, message.to_owned())), "{text:?}");
        }
    }

    proptest! {
        /// The csv crate writes what this reads, in every style of quotes and ends.
        #[test]
        fn written_records_are_read(
            rows in prop::collection::vec(prop::collection::vec("[a-c\"',\r\n\\\\ é]{0,5}", 2..4), 0..6),
            crlf: bool,
            style in 0..3usize,
        ) {
            let style = [csv::QuoteStyle::Necessary, csv::QuoteStyle::Always, csv::QuoteStyle::NonNumeric][style];
            let end = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let mut writer = csv::WriterBuilder::new().flexible(true).quote_style(style).terminator(end).from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let found: Vec<_> = read(&text).unwrap().into_iter().map(|(_, fields)| fields).collect();
            prop_assert_eq!(found, rows);
        }
    }
}
