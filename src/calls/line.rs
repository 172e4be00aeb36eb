//! The line of the log at the end of a call: at debug, and at warn where the call was slow.
//!
//! It has no token and no message of the client, but for what the error quotes that the client was told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use log::Level;

use crate::calls::call::{Call, Seldom};
use crate::calls::spent::Spent;
use crate::error::Error;
use crate::metrics::Counter;
use crate::status::Code;

/// What these lines are chosen by, wherever their code is.
const TARGET: &str = "billstream::calls";

/// When slow calls are told of at warn: a database that is slow makes all of them so.
pub struct Slow {
    seldom: Seldom,
    /// Slow calls since the last that was told of.
    others: Counter,
}

impl Default for Slow {
    fn default() -> Slow {
        Slow { seldom: Seldom::in_bursts(10), others: Counter::default() }
    }
}

impl Slow {
    /// Whether this one is to be told of at warn; then how many were not since the last.
    fn is_told(&self) -> Option<u64> {
        if self.seldom.is_time() {
            return Some(self.others.take());
        }
        self.others.add(1);
        None
    }
}

/// Logs a call that ended so after the time it `took`.
pub fn log(call: &Call, error: Option<&Error>, code: Code, took: Duration) {
    let told = is_slow(call, took).then(|| call.core.slow.is_told()).flatten();
    let level = told.map_or(Level::Debug, |_| Level::Warn);
    if log::log_enabled!(target: TARGET, level) {
        write(call, error, code, took, told);
    }
}

/// Whether it took longer than a call is to take in the server.
fn is_slow(call: &Call, took: Duration) -> bool {
    let limit = Duration::from_millis(call.core.config.slow_call_ms);
    // Most took less with their clients.
    !limit.is_zero() && took > limit && took.saturating_sub(call.spent.client.total()) > limit
}

/// `told` is of a slow one: how many others were slow.
fn write(call: &Call, error: Option<&Error>, code: Code, took: Duration, told: Option<u64>) {
    let Spent { rows, bytes_received, bytes_sent, queue, database, spool, writer, client } =
        &*call.spent;
    let caller = &call.caller;
    let end = error.map_or_else(|| "OK".to_owned(), Error::to_string);
    let what = told.map_or_else(String::new, |others| slow(&call.spent, others));
    let level = told.map_or(Level::Debug, |_| Level::Warn);
    let ms = |time: Duration| time.as_millis() as u64;
    log::log!(
        target: TARGET,
        level,
        method:% = call.method,
        peer = caller.address.as_str(),
        identity = caller.identity.as_deref().unwrap_or("-"),
        code:% = code,
        rows = rows.load(Ordering::Relaxed),
        bytes_received = bytes_received.load(Ordering::Relaxed),
        bytes_sent = bytes_sent.load(Ordering::Relaxed),
        ms = ms(took),
        queue_ms = ms(queue.total()),
        database_ms = ms(database.total()),
        spool_ms = ms(spool.total()),
        writer_ms = ms(writer.total()),
        client_ms = ms(client.total()),
        request_id:% = caller.request_id.as_ref().map_or_else(|| "-".to_owned(), |id| id.to_string());
        "{what}call ended: {end}"
    );
}

/// Why a slow call was slow.
fn slow(spent: &Spent, others: u64) -> String {
    let most = spent.most().map_or_else(
        || "which waited for nothing".to_owned(),
        |most| format!("which waited most for {most}"),
    );
    match others {
        0 => format!("slow call, {most}; "),
        _ => format!(
            "slow call, {most} ({others} others were slow since the last that was told of); "
        ),
    }
}
