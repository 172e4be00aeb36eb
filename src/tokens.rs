//! The file of tokens: who may call, and what.
//!
//! A line an entry, beside empty lines and comments, which begin with `#`:
//!
//! ```text
//! NAME RIGHTS sha256:HEX [expires=TIME]
//! NAME RIGHTS cert
//! ```
//!
//! The first is a token by its SHA-256. (It is 32 random bytes, so nobody finds it by trying: a slow hash, which
//! passwords need, would cost each call milliseconds and gain nothing.) A name may have several of them, as while one
//! replaces another. The second gives the rights of a certificate with this name.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

/// What a token begins with.
pub const PREFIX: &str = "bst_";

/// The most entries of a file: comparing a token with so many takes some 20 microseconds.
pub const MAX_ENTRIES: usize = 1_000;
/// The longest file in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// The longest name in bytes, which is that of a name in a certificate.
const MAX_NAME_BYTES: usize = 255;

/// Why a text is not what it should be. It quotes nothing: what is in the wrong place may be a token.
type Result<T> = std::result::Result<T, String>;

/// A kind of calls that may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Summaries, lists and exports.
    Read,
    /// Uploads and reconciles. They answer with what they did, and need no right to read.
    Write,
    /// What the operator does: backups, and the admin listener where it wants a token. It has no right to read or
    /// write of its own.
    Admin,
}

impl Right {
    const ALL: [Right; 3] = [Right::Read, Right::Write, Right::Admin];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::Admin => "admin",
        })
    }
}

impl FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Right> {
        let right = Right::ALL.into_iter().find(|right| right.to_string() == text);
        right.ok_or_else(|| "expected read, write or admin".to_owned())
    }
}

/// Some of the rights, at least one. Written with commas between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Those of a certificate that has no entry.
    pub const READ_AND_WRITE: Rights = Rights(1 << Right::Read as u8 | 1 << Right::Write as u8);

    /// Whether it is one of them.
    pub fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rights = Right::ALL.into_iter().filter(|right| self.has(*right));
        f.write_str(&rights.map(|right| right.to_string()).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Rights {
    type Err = String;

    fn from_str(text: &str) -> Result<Rights> {
        let rights = text.split(',').map(|right| right.parse::<Right>().map(Right::bit));
        let bits = rights.collect::<Result<Vec<u8>>>();
        let bits =
            bits.map_err(|_| "expected rights: read, write, admin, with commas between them")?;
        Ok(Rights(bits.into_iter().fold(0, |all, bit| all | bit)))
    }
}

/// The SHA-256 of a token.
pub type Hash = [u8; 32];

/// A token, of 32 random bytes. What it begins with tells those who look for lost secrets what it is.
pub fn token(random: &[u8; 32]) -> String {
    format!("{PREFIX}{}", hex(random))
}

/// What is kept of a token.
pub fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // OK because a String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of 64 digits.
fn unhex(text: &str) -> Option<Hash> {
    let is_hex = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let mut bytes = Hash::default();
    for (at, byte) in bytes.iter_mut().enumerate().filter(|_| is_hex) {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    is_hex.then_some(bytes)
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who it is: what limits are kept by, and told of in the log.
    pub name: Arc<str>,
    /// What it may call.
    pub rights: Rights,
    /// By what it is known.
    pub proof: Proof,
}

/// How a caller shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By the token with this hash, until the time comes.
    Token(Hash, Option<OffsetDateTime>),
    /// By a certificate with the name of the entry.
    Certificate,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { name, rights, proof } = self;
        write!(f, "{name} {rights} ")?;
        match proof {
            Proof::Token(hash, None) => write!(f, "sha256:{}", hex(hash)),
            Proof::Token(hash, Some(expires)) => {
                let expires = expires.format(&Rfc3339).map_err(|_| fmt::Error)?;
                write!(f, "sha256:{} expires={expires}", hex(hash))
            }
            Proof::Certificate => f.write_str("cert"),
        }
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(line: &str) -> Result<Entry> {
        let mut words = line.split_ascii_whitespace();
        let mut word = |what: &str| words.next().ok_or_else(|| format!("expected {what}"));
        let name = name(word("a name")?)?;
        let rights = word("rights after the name")?.parse()?;
        let proof = word("sha256:HEX or cert after the rights")?;
        let expires = words.next().map(expires).transpose()?;
        let proof = match (proof, proof.strip_prefix("sha256:"), expires) {
            ("cert", _, None) => Proof::Certificate,
            ("cert", _, Some(_)) => return Err("a certificate has its own end".to_owned()),
            (_, Some(digits), expires) => {
                let hash = unhex(digits).ok_or("expected 64 hexadecimal digits after sha256:")?;
                Proof::Token(hash, expires)
            }
            _ => return Err("expected sha256:HEX or cert after the rights".to_owned()),
        };
        match words.next() {
            None => Ok(Entry { name, rights, proof }),
            Some(_) => Err("there are more words than an entry has".to_owned()),
        }
    }
}

/// A name as it stands in the file.
pub fn name(text: &str) -> Result<Arc<str>> {
    let is_printed = text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_comment = text.is_empty() || text.starts_with('#');
    match is_printed && !is_comment && text.len() <= MAX_NAME_BYTES {
        true => Ok(text.into()),
        false => Err(format!(
            "expected a name of 1 to {MAX_NAME_BYTES} printable ASCII characters, without spaces, that begins \
             with no #"
        )),
    }
}

fn expires(text: &str) -> Result<OffsetDateTime> {
    let time =
        text.strip_prefix("expires=").and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    time.ok_or_else(|| "expected expires=TIME such as expires=2030-01-01T00:00:00Z".to_owned())
}

/// The entries of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of tokens, with their places in `entries`.
    hashes: Vec<(Hash, u32)>,
    entries: Vec<Entry>,
}

impl FromStr for Tokens {
    type Err = String;

    /// The error names the line.
    fn from_str(text: &str) -> Result<Tokens> {
        let mut tokens = Tokens::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_ascii();
            if !line.is_empty() && !line.starts_with('#') {
                let added = line.parse().and_then(|entry| tokens.add(entry));
                added.map_err(|why| format!("line {number}: {why}"))?;
            }
        }
        Ok(tokens)
    }
}

impl Tokens {
    /// Adds an entry, unless another one says something else of the same token or certificate.
    fn add(&mut self, entry: Entry) -> Result<()> {
        let is_same = |other: &Entry| match (&entry.proof, &other.proof) {
            (Proof::Token(hash, _), Proof::Token(other, _)) => hash == other,
            (Proof::Certificate, Proof::Certificate) => entry.name == other.name,
            _ => false,
        };
        if self.entries.iter().any(is_same) {
            return Err("this token or certificate has an entry already".to_owned());
        }
        if self.entries.len() == MAX_ENTRIES {
            return Err(format!("there are more than {MAX_ENTRIES} entries"));
        }
        if let Proof::Token(hash, _) = entry.proof {
            self.hashes.push((hash, self.entries.len() as u32));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The entries in their order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of a token. Every hash is looked at to its end, whichever it is, so that the time tells nothing
    /// of them. (It could tell at most the beginning of a hash, from which no token follows.)
    pub fn of_token(&self, token: &[u8]) -> Option<&Entry> {
        let shown = hash(token);
        let mut found = u32::MAX;
        for (hash, at) in &self.hashes {
            found.conditional_assign(at, hash.ct_eq(&shown));
        }
        self.entries.get(found as usize)
    }

    /// The entry of a certificate with this name.
    pub fn of_certificate(&self, name: &str) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.proof == Proof::Certificate && *entry.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let expires = prop::option::of(0..253_402_207_200i64);
        let proof = prop::option::of((any::<Hash>(), expires)).prop_map(|token| match token {
            Some((hash, expires)) => Proof::Token(
                hash,
                expires.map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap()),
            ),
            None => Proof::Certificate,
        });
        let name = "[!\"$-~][!-~]{0,30}|[a-z]{1,8}".prop_map(Arc::from);
        (name, (1..8u8).prop_map(Rights), proof).prop_map(|(name, rights, proof)| Entry {
            name,
            rights,
            proof,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec(entry(), 0..20), noise in "|#.*|[ \t]*") {
            let mut expected = Tokens::default();
            let added: Vec<_> =
                entries.into_iter().filter(|entry| expected.add(entry.clone()).is_ok()).collect();
            let lines = added.iter().map(|entry| format!("{entry}\n{noise}\r\n"));
            prop_assert_eq!(lines.collect::<String>().parse(), Ok(expected));
        }

        /// A text of any kind, and lines that are nearly right.
        #[test]
        fn nothing_makes_it_panic(
            text in "\\PC{0,200}|([a-z#]{0,3} (read|write|,){0,4} (sha256:[0-9a-fé+]{62,66}|cert) ?(expires=[0-9TZ:-]{0,20})?\n){0,3}",
        ) {
            if let Ok(tokens) = text.parse::<Tokens>() {
                let again: String = tokens.entries().iter().map(|entry| format!("{entry}\n")).collect();
                prop_assert_eq!(again.parse(), Ok(tokens));
            }
        }

        #[test]
        fn a_token_finds_its_entry_and_no_other(randoms in prop::collection::hash_set(any::<Hash>(), 1..20)) {
            let tokens: Vec<_> = randoms.iter().map(token).collect();
            let line = |(at, token): (usize, &String)| {
                format!("name-{at} read sha256:{}\n", hex(&hash(token.as_bytes())))
            };
            let file: Tokens = tokens.iter().enumerate().map(line).collect::<String>().parse().unwrap();
            for (at, token) in tokens.iter().enumerate() {
                let found = file.of_token(token.as_bytes()).unwrap();
                prop_assert_eq!(&*found.name, format!("name-{at}"));
            }
            prop_assert_eq!(file.of_token(b"bst_"), None);
        }
    }

    #[test]
    fn a_wrong_line_is_named_and_not_quoted() {
        let token = token(&[7; 32]);
        let hash = "ab".repeat(32);
        for (line, expected) in [
            (format!("reports read {token}"), "expected sha256:HEX or cert after the rights"),
            (token.clone(), "expected rights after the name"),
            (format!("a {token} cert"), "expected rights: read, write, admin"),
            ("a read".to_owned(), "expected sha256:HEX or cert"),
            ("a read, cert".to_owned(), "expected rights: read, write, admin"),
            ("a read sha256:ab".to_owned(), "expected 64 hexadecimal digits"),
            (format!("a read sha256:+{}", &hash[1..]), "expected 64 hexadecimal digits"),
            (format!("a read sha256:{hash} 2030-01-01"), "expected expires=TIME"),
            (format!("a read sha256:{hash} expires=2030-01-01"), "expected expires=TIME"),
            (format!("a read sha256:{hash} expires=2030-01-01T00:00:00Z x"), "more words"),
            ("a read cert expires=2030-01-01T00:00:00Z".to_owned(), "has its own end"),
            ("é read cert".to_owned(), "expected a name of 1 to 255"),
            ("b write cert".to_owned(), "has an entry already"),
        ] {
            let why =
                format!("# a comment\n\nb read cert\n{line}\n").parse::<Tokens>().unwrap_err();
            assert!(why.starts_with("line 4: ") && why.contains(expected), "{line}: {why}");
            assert!(!why.contains("bst_"), "{why}");
        }
        let many: String = (0..=MAX_ENTRIES).map(|i| format!("n{i} read cert\n")).collect();
        assert_eq!(
            many.parse::<Tokens>(),
            Err("line 1001: there are more than 1000 entries".into())
        );
    }
}
