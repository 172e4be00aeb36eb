//! The name of a call in the logs of its client and of the server.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::tokens;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The longest that is taken from a client, in bytes.
const MAX_BYTES: usize = 128;

/// The name of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// By its client.
    Given(Box<str>),
    /// By the server: the random part of this start of it, and a number.
    Made(u32, u32),
}

impl RequestId {
    /// What a client gives, where it can stand in a line of a log as one word. (A token in the wrong header is not
    /// for a log.)
    pub fn given(value: &[u8]) -> Option<RequestId> {
        let is_word = (1..=MAX_BYTES).contains(&value.len());
        let is_word = is_word && value.iter().all(u8::is_ascii_graphic);
        let is_word = is_word && !value.starts_with(tokens::PREFIX.as_bytes());
        let text = std::str::from_utf8(value).ok().filter(|_| is_word)?;
        Some(RequestId::Given(text.into()))
    }

    /// Every answer has it, and the machinery of `format!` would be a seventh of what it costs there.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            RequestId::Given(text) => Cow::Borrowed(text),
            RequestId::Made(start, number) => {
                let digits = |value: u32| {
                    (0..8).rev().map(move |i| DIGITS[(value >> (4 * i)) as usize & 15])
                };
                let mut text = String::with_capacity(16);
                text.extend(digits(*start).chain(digits(*number)).map(char::from));
                Cow::Owned(text)
            }
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Makes names that no other call of this server has, until it has had 2^32 of them, and hardly one of another server.
pub struct RequestIds {
    start: u32,
    next: AtomicU32,
}

impl Default for RequestIds {
    fn default() -> RequestIds {
        // Random keys, from the system: without a crate for it.
        let start = RandomState::new().hash_one("x-request-id") as u32;
        RequestIds { start, next: AtomicU32::new(1) }
    }
}

impl RequestIds {
    pub fn make(&self) -> RequestId {
        RequestId::Made(self.start, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_taken_and_else_one_is_made() {
        let given = |value: &[u8]| RequestId::given(value).map(|id| id.to_string());
        assert_eq!(given(b"7f3a/b:2~").as_deref(), Some("7f3a/b:2~"));
        assert!(given(&[b'x'; MAX_BYTES]).is_some());
        let bad: [&[u8]; 6] =
            [b"", b"a b", b"a\nb", "ä".as_bytes(), &[b'x'; MAX_BYTES + 1], b"bst_0123"];
        assert_eq!(bad.map(given), [const { None }; 6]);

        let ids = RequestIds::default();
        let [first, second] = [ids.make(), ids.make()].map(|id| id.to_string());
        assert_ne!(first, second);
        assert_eq!((first.len(), &first[..8]), (16, &second[..8]));
        assert!(RequestId::given(first.as_bytes()).is_some());
    }
}
