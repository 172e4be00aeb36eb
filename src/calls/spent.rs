//! What one call has moved, and what it has waited for: for the line of the log at its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::calls::live::Since;

/// The sum of all waits for one thing, the one that lasts included. Told of by whoever waits, one at a time.
pub struct Waited {
    since: Since,
    /// In milliseconds, of the waits that ended.
    ended: AtomicU64,
}

impl Waited {
    fn new(start: Instant) -> Waited {
        Waited { since: Since::from(start), ended: AtomicU64::new(0) }
    }

    /// A wait begins, if none lasts.
    pub fn begin(&self) {
        if !self.since.is_on() {
            self.since.begin();
        }
    }

    /// The wait that lasts, if any, is over.
    pub fn end(&self) {
        if let Some(lasts) = self.since.lasts() {
            self.since.end();
            self.ended.fetch_add(lasts.as_millis() as u64, Ordering::Relaxed);
        }
    }

    pub fn total(&self) -> Duration {
        let ended = Duration::from_millis(self.ended.load(Ordering::Relaxed));
        ended + self.since.lasts().unwrap_or_default()
    }
}

/// What `poll` found, counted as a wait while it finds nothing.
pub fn during<T>(waited: &Waited, poll: Poll<T>) -> Poll<T> {
    match poll {
        Poll::Pending => waited.begin(),
        Poll::Ready(_) => waited.end(),
    }
    poll
}

/// One call's.
pub struct Spent {
    /// Invoices or events, those sent by a query and those received by the others; lines of a summary.
    pub rows: AtomicU64,
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    /// For a worker thread, in its queue.
    pub queue: Waited,
    /// For a query to read.
    pub database: Waited,
    /// For an upload to be moved to disk, with the wait for the thread that does it.
    pub spool: Waited,
    /// For the commit.
    pub writer: Waited,
    /// For the client to send, or to take.
    pub client: Waited,
}

impl Spent {
    /// Of a call that begins now, by waiting for the first message of its client.
    pub fn new(start: Instant) -> Spent {
        let waited = || Waited::new(start);
        let client = waited();
        client.since.begin_at(start);
        Spent {
            rows: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            queue: waited(),
            database: waited(),
            spool: waited(),
            writer: waited(),
            client,
        }
    }

    /// What was waited for most in the server, by name; `None` where it was busy, or waited for its client alone.
    pub fn most(&self) -> Option<&'static str> {
        let waits = [
            ("a worker thread", &self.queue),
            ("the database", &self.database),
            ("the spool", &self.spool),
            ("the writer", &self.writer),
        ];
        let longest = waits.into_iter().max_by_key(|(_, waited)| waited.total());
        longest.filter(|(_, waited)| !waited.total().is_zero()).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_and_one_that_lasts_counts() {
        let start = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let spent = Spent::new(start);
        assert!(spent.client.total() >= Duration::from_secs(5));
        spent.client.end();
        let ended = spent.client.total();
        assert_eq!(ended.subsec_nanos() % 1_000_000, 0, "it lasts no more");
        assert_eq!(spent.most(), None);

        let writer = Waited::new(start);
        writer.since.begin_at(start);
        // It goes on: a second poll of who waits is no new wait.
        writer.begin();
        assert!(writer.total() >= Duration::from_secs(5));
        writer.end();
        writer.end();
        assert!((5..60).contains(&writer.total().as_secs()));
        assert_eq!(Spent { writer, ..Spent::new(start) }.most(), Some("the writer"));
    }
}
