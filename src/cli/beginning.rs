//! What an input begins with: which format it has, in which encoding.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};

use super::csv_records::fill;
use super::rows::{too_long, Wrong, MAX_ROW_BYTES};

/// The format of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Csv,
    Ndjson,
    /// Nothing but blank lines, if those.
    Empty,
}

/// An input from the first line that is not blank.
pub type Rest<R> = Chain<Cursor<Vec<u8>>, BufReader<R>>;

/// Looks at what `input` begins with, however few bytes a read of it gives, and counts blank lines in
/// `line`. A byte order mark of UTF-8 is dropped.
pub fn open<R: Read>(input: R, line: &mut u64) -> Result<(Kind, Rest<R>), Wrong> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut start = Vec::new();
    input.by_ref().take(4).read_to_end(&mut start)?;
    refuse_encoding(&start)?;
    if start.starts_with(b"\xEF\xBB\xBF") {
        start.drain(..3);
    }
    let mut input = Cursor::new(start).chain(input);
    let (kind, mut indent) = skip_blank(&mut input, line)?;
    let (ahead, input) = input.into_inner();
    indent.extend(&ahead.get_ref()[ahead.position() as usize..]);
    Ok((kind, Cursor::new(indent).chain(input)))
}

/// Goes to the first byte that is not blank. Also gives what is before it on its line.
fn skip_blank(input: &mut impl BufRead, line: &mut u64) -> Result<(Kind, Vec<u8>), Wrong> {
    let mut indent = Vec::new();
    loop {
        match fill(input)?.first() {
            None => return Ok((Kind::Empty, indent)),
            Some(b'\n') => {
                *line += 1;
                indent.clear();
            }
            Some(&blank) if blank.is_ascii_whitespace() => indent.push(blank),
            Some(b'{') => return Ok((Kind::Ndjson, indent)),
            Some(b'[') => return Err(Wrong::input(ARRAY)),
            Some(_) => return Ok((Kind::Csv, indent)),
        }
        if indent.len() as u64 > MAX_ROW_BYTES {
            return Err(too_long());
        }
        input.consume(1);
    }
}

const ARRAY: &str =
    "the input begins with [: one JSON object a line is expected, with neither the \
                     brackets of an array around them nor commas between them";

/// Refuses what is not UTF-8 by its byte order mark, or without one by the zero beside its first letter.
fn refuse_encoding(start: &[u8]) -> Result<(), Wrong> {
    let encoding = match start {
        [0xFF, 0xFE, 0, 0] => "UTF-32LE",
        [0, 0, 0xFE, 0xFF] => "UTF-32BE",
        [0xFF, 0xFE, ..] => "UTF-16LE",
        [0xFE, 0xFF, ..] => "UTF-16BE",
        [1..=255, 0, 0, 0] => "UTF-32LE",
        [0, 0, 0, 1..=255] => "UTF-32BE",
        [1..=255, 0, ..] => "UTF-16LE",
        [0, 1..=255, ..] => "UTF-16BE",
        _ => return Ok(()),
    };
    let unicode = &encoding[..6];
    let order = if encoding.ends_with("LE") { "little-endian" } else { "big-endian" };
    Err(Wrong::Input(format!(
        "the text is {unicode} ({order}); expected UTF-8: save it as UTF-8, or convert it with \
         `iconv -f {encoding} -t UTF-8`"
    )))
}
