//! What a text begins with: which format it has.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};

use super::csv_records::fill;
use super::{too_long, Wrong, MAX_ROW_BYTES};

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

/// Looks at what `input` begins with, and counts blank lines in `line`.
pub fn open<R: Read>(input: R, line: &mut u64) -> Result<(Kind, Rest<R>), Wrong> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let (kind, indent) = skip_blank(&mut input, line)?;
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
