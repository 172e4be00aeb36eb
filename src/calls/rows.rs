//! From the bytes of a message to the message, or to its rows.

use std::fmt::Display;

use crate::calls::wire::{self, Incoming, OfRows, Rows};
use crate::error::{Error, Result};

/// Refuses a message of more than `max_bytes`.
pub fn within<M: Incoming>(what: impl Display, bytes: usize, max_bytes: usize) -> Result<()> {
    if bytes <= max_bytes {
        return Ok(());
    }
    let message = format!("{what} has {bytes} bytes; {} is {max_bytes}", M::SIZE_LIMIT);
    Err(Error::Exhausted { message, retry_after: None })
}

/// The message in `bytes`, or what is wrong with it, under the name `what`.
pub fn parse<M: Incoming>(what: impl Display, bytes: &[u8]) -> Result<M> {
    wire::check(M::SHAPE, bytes)
        .and_then(|()| M::parse_from_bytes(bytes).map_err(|error| error.to_string()))
        .map_err(|why| Error::invalid(what.to_string(), format!("not a valid message: {why}")))
}

/// Hands each row of the message in `bytes` to `take`, as it came, or says what is wrong with the message,
/// under the name `what`. Gives whether the message is a trial.
pub fn each_row<M: OfRows>(
    what: impl Display,
    bytes: &[u8],
    max_rows: usize,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<bool> {
    if !M::IS_BATCH {
        return take(bytes).map(|()| false);
    }
    let malformed =
        |why| Error::invalid(what.to_string(), format!("begins a malformed batch: {why}"));
    let Rows { rows, is_trial } = wire::rows::<M>(bytes, max_rows).map_err(malformed)?;
    if rows.len() > max_rows {
        let message = format!("{what} begins a batch of more than {max_rows} rows, max_batch_rows");
        return Err(Error::Exhausted { message, retry_after: None });
    }
    rows.into_iter().try_for_each(take)?;
    Ok(is_trial)
}
