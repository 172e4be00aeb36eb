//! The page token of ListInvoices: the cursor, and a check that it belongs to the filter.

use crate::error::{Error, Result};
use crate::model::Filter;

/// The token of the page after `sequence`.
pub fn encode(filter: &Filter, sequence: i64) -> String {
    format!("{sequence:016x}{:016x}", checksum(filter, sequence))
}

/// The cursor of a token; 0 for the empty one, the first page.
pub fn decode(filter: &Filter, token: &str) -> Result<i64> {
    if token.is_empty() {
        return Ok(0);
    }
    let sequence = token.get(..16).and_then(|hex| i64::from_str_radix(hex, 16).ok());
    match sequence {
        Some(sequence) if token == encode(filter, sequence) => Ok(sequence),
        _ => Err(Error::invalid("page_token", "is not a token that was given for this filter")),
    }
}

/// FNV-1a with 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): it is stable between builds,
/// and guards against mistakes, not against malice: any sequence may be asked for anyway.
fn checksum(filter: &Filter, sequence: i64) -> u64 {
    let Filter { customer_id, statuses, issued_from, issued_until } = filter;
    let fields = format!("{sequence} {statuses} {issued_from:?} {issued_until:?} {customer_id}");
    fields.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use proptest::prelude::*;

    prop_compose! {
        fn filter()(
            customer_id in ".{0,9}", statuses in 0..64i64, from in any::<i64>(), nanos in 0..9i32,
        ) -> Filter {
            let issued_from = Timestamp { seconds: from, nanos };
            Filter { customer_id, statuses, issued_from, issued_until: Timestamp::MAX }
        }
    }

    proptest! {
        #[test]
        fn a_token_gives_its_cursor_back(filter in filter(), sequence in 1..i64::MAX) {
            prop_assert_eq!(decode(&filter, &encode(&filter, sequence)), Ok(sequence));
        }

        #[test]
        fn another_filter_is_refused(a in filter(), b in filter(), sequence in 1..i64::MAX) {
            prop_assume!(a != b);
            prop_assert!(decode(&b, &encode(&a, sequence)).is_err());
        }

        #[test]
        fn a_changed_token_is_refused(filter in filter(), sequence in 1..i64::MAX, at in 0..32usize, with in "[0-9a-fx]") {
            let token = encode(&filter, sequence);
            let mut changed = token.clone();
            changed.replace_range(at..=at, &with);
            prop_assume!(changed != token);
            prop_assert!(decode(&filter, &changed).is_err());
        }

        #[test]
        fn junk_is_refused(filter in filter(), token in "\\PC{1,40}") {
            prop_assert!(decode(&filter, &token).is_err());
        }
    }
}
