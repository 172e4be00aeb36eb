//! Which encoding an input has, and its text as UTF-8, in bounded memory. What is nothing in an encoding is
//! refused with its place, and never replaced.

use std::fmt;
use std::io::{self, Chain, Cursor, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_16BE, UTF_16LE, UTF_8};

use super::problems::Complaint;
use super::Wrong;

/// What `--encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// In the order that its byte order mark says.
    Utf16,
    Named(&'static Encoding),
}

impl Charset {
    /// Reads a name of the WHATWG's list of encodings. There `utf-16` is little-endian; here it is what the
    /// byte order mark says.
    pub fn parse(name: &str) -> Result<Charset, String> {
        if name.eq_ignore_ascii_case("utf-16") {
            return Ok(Charset::Utf16);
        }
        // OK to leave out x-user-defined and the encodings that are only replaced: no text has them.
        match Encoding::for_label_no_replacement(name.as_bytes()) {
            Some(encoding) if encoding != encoding_rs::X_USER_DEFINED => {
                Ok(Charset::Named(encoding))
            }
            _ => {
                Err("expected utf-8, utf-16, utf-16le, utf-16be, windows-1252, or another name of \
                      https://encoding.spec.whatwg.org/#names-and-labels"
                    .to_owned())
            }
        }
    }

    fn is_utf_16(self) -> bool {
        self.name().starts_with("UTF-16")
    }

    fn name(self) -> &'static str {
        match self {
            Charset::Utf16 => "UTF-16",
            Charset::Named(encoding) => encoding.name(),
        }
    }
}

/// An input with what was read ahead of it.
type Input<R> = Chain<Cursor<Vec<u8>>, R>;

/// The text of an input, without its byte order mark.
pub enum Text<R> {
    /// As it is. Whether it is UTF-8 is looked at where it is used.
    Plain(Input<R>),
    Decoded(Box<Decoded<Input<R>>>),
}

impl<R: Read> Text<R> {
    /// Looks at what `input` begins with, however few bytes a read of it gives.
    pub fn open(mut input: R, charset: Option<Charset>) -> Result<Text<R>, Wrong> {
        let mut start = Vec::new();
        input.by_ref().take(4).read_to_end(&mut start)?;
        let found = Found::look(&start);
        let encoding = choose(charset, &found)?;
        start.drain(..found.mark_bytes);
        let input = Cursor::new(start).chain(input);
        Ok(match encoding == UTF_8 {
            true => Text::Plain(input),
            false => Text::Decoded(Box::new(Decoded::new(input, encoding, found.mark_bytes))),
        })
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Text::Plain(input) => input.read(buffer),
            Text::Decoded(decoded) => decoded.read(buffer),
        }
    }
}

/// What the first bytes of an input tell of its encoding.
struct Found {
    /// Empty when they tell nothing.
    name: &'static str,
    /// Bytes of the byte order mark; 0 when it is told by the zeros beside the first letter.
    mark_bytes: usize,
}

impl Found {
    fn look(start: &[u8]) -> Found {
        let (name, mark_bytes) = match start {
            [0xEF, 0xBB, 0xBF, ..] => ("UTF-8", 3),
            [0xFF, 0xFE, 0, 0] => ("UTF-32LE", 4),
            [0, 0, 0xFE, 0xFF] => ("UTF-32BE", 4),
            [0xFF, 0xFE, ..] => ("UTF-16LE", 2),
            [0xFE, 0xFF, ..] => ("UTF-16BE", 2),
            [1..=255, 0, 0, 0] => ("UTF-32LE", 0),
            [0, 0, 0, 1..=255] => ("UTF-32BE", 0),
            [1..=255, 0, ..] => ("UTF-16LE", 0),
            [0, 1..=255, ..] => ("UTF-16BE", 0),
            _ => ("", 0),
        };
        Found { name, mark_bytes }
    }

    /// `UTF-16 (little-endian)`.
    fn described(&self) -> String {
        match self.name.split_at_checked(6) {
            Some((unicode, "LE")) => format!("{unicode} (little-endian)"),
            Some((unicode, _)) => format!("{unicode} (big-endian)"),
            None => self.name.to_owned(),
        }
    }
}

fn choose(charset: Option<Charset>, found: &Found) -> Result<&'static Encoding, Complaint> {
    let Some(charset) = charset else {
        return match found.name {
            "" | "UTF-8" => Ok(UTF_8),
            _ => Err(other_than_utf_8(found)),
        };
    };
    let named = match (charset, found.name) {
        (Charset::Named(encoding), _) => encoding,
        (Charset::Utf16, "UTF-16LE") => UTF_16LE,
        (Charset::Utf16, "UTF-16BE") => UTF_16BE,
        (Charset::Utf16, "") => {
            return Err(Complaint::new("UTF-16 without a byte order mark")
                .hint("--encoding utf-16le or utf-16be says which order its bytes have"))
        }
        (Charset::Utf16, _) => UTF_16LE,
    };
    // Without a mark a zero may as well be half of a letter in UTF-16.
    let is_told = found.mark_bytes > 0 || !charset.is_utf_16();
    match found.name {
        name if is_told && !name.is_empty() && name != named.name() => {
            let (described, said) = (found.described(), charset.name());
            Err(Complaint::new(format!(
                "the text is {described}, and not {said} as --encoding says"
            )))
        }
        _ => Ok(named),
    }
}

fn other_than_utf_8(found: &Found) -> Complaint {
    let complaint = Complaint::new(format!("the text is {}; expected UTF-8", found.described()));
    match found.name {
        name if name.starts_with("UTF-16") => {
            complaint.hint(format!("--encoding {} reads it", name.to_lowercase()))
        }
        name => complaint.hint(format!("convert it with `iconv -f {name} -t UTF-8`")),
    }
}

const CHUNK_BYTES: usize = 16 << 10;

/// Decodes an input chunk by chunk.
pub struct Decoded<R> {
    input: R,
    decoder: Decoder,
    /// Bytes of a single-byte encoding that are no text in it. The WHATWG takes them for control characters, and so
    /// a file in yet another encoding for nonsense.
    undefined: Vec<u8>,
    /// Read and not decoded yet: from `taken` on.
    raw: Vec<u8>,
    taken: usize,
    /// Bytes of the input before those of `raw`.
    before: u64,
    /// Decoded and not given out yet: from `given` on.
    text: Vec<u8>,
    given: usize,
    /// What comes after the text at hand.
    then: Then,
}

enum Then {
    More,
    Malformed(Malformed),
    End,
}

impl<R: Read> Decoded<R> {
    fn new(input: R, encoding: &'static Encoding, mark_bytes: usize) -> Decoded<R> {
        Decoded {
            input,
            decoder: encoding.new_decoder_without_bom_handling(),
            undefined: undefined(encoding),
            raw: Vec::new(),
            taken: 0,
            before: mark_bytes as u64,
            text: Vec::new(),
            given: 0,
            then: Then::More,
        }
    }

    /// Decodes what is at hand, or else what one read gives.
    fn decode(&mut self) -> io::Result<()> {
        let is_last = self.taken == self.raw.len() && !self.fill()?;
        let raw = &self.raw[self.taken..];
        let is_undefined = |byte: &u8| self.undefined.contains(byte);
        let defined = match self.undefined.is_empty() {
            true => raw.len(),
            false => raw.iter().position(is_undefined).unwrap_or(raw.len()),
        };
        self.text.resize(CHUNK_BYTES, 0);
        let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(
            &raw[..defined],
            &mut self.text,
            is_last,
        );
        self.text.truncate(written);
        self.given = 0;
        self.taken += read;
        let malformed = match result {
            DecoderResult::Malformed(bytes, after) => u64::from(bytes) + u64::from(after),
            DecoderResult::InputEmpty if read < raw.len() => 0,
            DecoderResult::InputEmpty if is_last => {
                self.then = Then::End;
                return Ok(());
            }
            DecoderResult::InputEmpty | DecoderResult::OutputFull => return Ok(()),
        };
        let byte = self.before + self.taken as u64 - malformed;
        let encoding = self.decoder.encoding().name();
        self.then = Then::Malformed(Malformed { byte, encoding, is_last });
        Ok(())
    }

    /// Reads the next chunk; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.before += self.raw.len() as u64;
        self.taken = 0;
        self.raw.resize(CHUNK_BYTES, 0);
        let read = self.input.read(&mut self.raw);
        // A read that failed gave nothing.
        self.raw.truncate(*read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            match &self.then {
                Then::More => self.decode()?,
                Then::Malformed(malformed) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, malformed.clone()))
                }
                Then::End => return Ok(0),
            }
        }
        let read = (&self.text[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

/// Those bytes of a single-byte encoding that stand for control characters past ASCII.
fn undefined(encoding: &'static Encoding) -> Vec<u8> {
    let is_control = |&byte: &u8| {
        let bytes = [byte];
        let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes);
        text.is_some_and(|text| text.chars().any(|c| ('\u{80}'..='\u{9f}').contains(&c)))
    };
    match encoding.is_single_byte() {
        true => (0x80..=0xff).filter(is_control).collect(),
        false => Vec::new(),
    }
}

/// Bytes that are nothing in an encoding.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// The first of them, the first of the input being 0.
    byte: u64,
    encoding: &'static str,
    /// There is nothing after them.
    is_last: bool,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let cut = if self.is_last { ": is the file cut?" } else { "" };
        write!(f, "what is at byte {} of the input is nothing in {}{cut}", self.byte, self.encoding)
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What any reads of `bytes` give, or the message of what is wrong.
    fn decode(name: Option<&str>, bytes: &[u8]) -> Result<String, String> {
        let charset = name.map(|name| Charset::parse(name).unwrap());
        let read = |piece: usize| {
            let pieces = Pieces(bytes, piece);
            let mut text = Text::open(pieces, charset).map_err(|wrong| match wrong {
                Wrong::Input(complaint) => complaint.message,
                _ => panic!("no disk here"),
            })?;
            let mut decoded = Vec::new();
            text.read_to_end(&mut decoded).map_err(|error| error.to_string())?;
            Ok(String::from_utf8(decoded).unwrap())
        };
        let found = read(usize::MAX);
        (1..4).for_each(|piece| assert_eq!(read(piece), found));
        found
    }

    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn texts_are_decoded_without_their_mark() {
        let text = "id,Zürich €,𝄞\n".repeat(5000);
        let (little, big) = (utf_16(&text, u16::to_le_bytes), utf_16(&text, u16::to_be_bytes));
        let marked = |mark: &[u8], text: &[u8]| [mark, text].concat();
        for (name, bytes) in [
            (None, text.clone().into_bytes()),
            (None, marked(b"\xEF\xBB\xBF", text.as_bytes())),
            (Some("utf-8"), marked(b"\xEF\xBB\xBF", text.as_bytes())),
            (Some("UTF-16"), marked(b"\xFF\xFE", &little)),
            (Some("utf-16"), marked(b"\xFE\xFF", &big)),
            (Some("utf-16le"), marked(b"\xFF\xFE", &little)),
            (Some("utf-16le"), little.clone()),
            (Some("utf-16be"), big),
        ] {
            assert_eq!(decode(name, &bytes).as_ref(), Ok(&text), "{name:?}");
        }
        let western = b"Z\xfcrich \x80\n".repeat(9000);
        assert_eq!(decode(Some("windows-1252"), &western), Ok("Zürich €\n".repeat(9000)));
        assert_eq!(decode(Some("shift_jis"), b"\x93\xfa\x96\x7b"), Ok("日本".to_owned()));
        assert_eq!(decode(Some("utf-16le"), b""), Ok(String::new()));
    }

    #[test]
    fn what_is_nothing_in_the_encoding_is_refused_with_its_place() {
        let more = |bytes: &[u8]| [&b"a,".repeat(20_000)[..], bytes].concat();
        for (name, bytes, place) in [
            ("windows-1252", more(b"\x81x"), "byte 40000 of the input is nothing in windows-1252"),
            ("iso-8859-15", b"ab\x99".to_vec(), "byte 2 of the input is nothing in ISO-8859-15"),
            ("shift_jis", b"ab\xff,".to_vec(), "byte 2 of the input is nothing in Shift_JIS"),
            (
                "utf-16le",
                b"\xFF\xFEa\0\0\xDCb\0".to_vec(),
                "byte 4 of the input is nothing in UTF-16LE",
            ),
            (
                "utf-16le",
                b"a\0b".to_vec(),
                "byte 2 of the input is nothing in UTF-16LE: is the file cut?",
            ),
            (
                "utf-16be",
                b"\0a\xD8\0".to_vec(),
                "byte 2 of the input is nothing in UTF-16BE: is the file cut?",
            ),
        ] {
            let expected = format!("what is at {place}");
            assert_eq!(decode(Some(name), &bytes), Err(expected), "{name}");
        }
    }

    #[test]
    fn what_an_input_begins_with_must_agree() {
        for (name, bytes, expected) in [
            (None, &b"\xFF\xFEi\0"[..], "the text is UTF-16 (little-endian); expected UTF-8"),
            (None, b"\0i\0d", "the text is UTF-16 (big-endian); expected UTF-8"),
            (None, b"\xFF\xFE\0\0i\0\0\0", "the text is UTF-32 (little-endian); expected UTF-8"),
            (Some("utf-16"), b"id", "UTF-16 without a byte order mark"),
            (
                Some("utf-16le"),
                b"\xFE\xFF\0i",
                "the text is UTF-16 (big-endian), and not UTF-16LE as --encoding says",
            ),
            (
                Some("utf-16"),
                b"\xEF\xBB\xBFid",
                "the text is UTF-8, and not UTF-16 as --encoding says",
            ),
            (
                Some("windows-1252"),
                b"\xEF\xBB\xBFid",
                "the text is UTF-8, and not windows-1252 as --encoding says",
            ),
            (
                Some("windows-1252"),
                b"i\0d\0",
                "the text is UTF-16 (little-endian), and not windows-1252 as --encoding says",
            ),
            (
                Some("utf-8"),
                b"\xFF\xFEi\0",
                "the text is UTF-16 (little-endian), and not UTF-8 as --encoding says",
            ),
        ] {
            assert_eq!(decode(name, bytes), Err(expected.to_owned()), "{name:?}");
        }
    }

    #[test]
    fn names_that_are_no_encoding_are_refused() {
        for name in ["", "utf-9", "x-user-defined", "hz-gb-2312", "replacement"] {
            assert!(Charset::parse(name).is_err(), "{name}");
        }
    }
}
