//! When to make a call again, and how long to wait before.

use std::time::{Duration, Instant};

use super::{Client, Code, Error, Result};
use crate::bridge::wait_while;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// The tries of one piece of work, for what a [`Client`] cannot repeat by itself: an upload.
///
/// The delay between tries grows from 100 ms to 2 s, and is never less than what the server asks for. The time of
/// [`Client::with_retries`] is that of failures: it counts from the first one after the last progress.
///
/// ```no_run
/// # use billstream::client::{Client, Error};
/// # use billstream::proto::report::{BulkResult, CreateInvoiceRequest};
/// fn create(client: &Client, batch_id: &str, rows: &[CreateInvoiceRequest]) -> Result<BulkResult, Error> {
///     let attempt = || {
///         let mut upload = client.upload()?;
///         rows.iter().try_for_each(|row| upload.send(row))?;
///         upload.commit(batch_id)
///     };
///     let mut retry = client.retry();
///     loop {
///         match attempt() {
///             // The batch_id makes it safe: what was created is not created again.
///             Err(error) => retry.wait(error)?,
///             done => return done,
///         }
///     }
/// }
/// ```
pub struct Retry {
    client: Client,
    /// The first failure after the last progress. Time that passes while all goes well, or while nobody asks
    /// for more, does not count.
    failing_since: Option<Instant>,
    delay: Duration,
}

impl Retry {
    pub(super) fn new(client: &Client) -> Retry {
        Retry { client: client.clone(), failing_since: None, delay: FIRST_DELAY }
    }

    /// Something was achieved: the next failure is a first one again.
    pub fn progressed(&mut self) {
        self.failing_since = None;
        self.delay = FIRST_DELAY;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    ///
    /// `error` itself, where another try cannot help or the time is over; CANCELLED where the client was stopped.
    pub fn wait(&mut self, error: Error) -> Result<()> {
        let limit = self.client.retry_for;
        let failing_for = self.failing_since.get_or_insert_with(Instant::now).elapsed();
        if !may_pass(&error) || failing_for >= limit || self.client.is_gone() {
            return Err(error);
        }
        let asked_for = error.retry_delay.unwrap_or_default();
        let delay = self.delay.max(asked_for).min(limit - failing_for);
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        (self.client.on_retry)(&error, delay);
        self.client.sleep(delay)
    }
}

impl Client {
    fn sleep(&self, delay: Duration) -> Result<()> {
        let timer = futures_timer::Delay::new(delay);
        wait_while(timer, || !self.stop.is_stopped()).ok_or_else(super::cancelled)
    }
}

/// True when the same call may succeed later.
fn may_pass(error: &Error) -> bool {
    match error.code {
        // A lost connection, or a server that is stopping, starting, or out of disk.
        Code::Unavailable => true,
        // Streams of this client have no deadline: it is one of the server's limits on time.
        Code::DeadlineExceeded => true,
        // A limit that others use up; without a delay it is this call that is too large.
        Code::ResourceExhausted => error.retry_delay.is_some(),
        // What the C core says when a connection ends between the last data and the status.
        Code::Unknown => error.message.contains("Stream removed"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::Arc;

    fn client() -> Client {
        Client::connect("127.0.0.1:1")
    }

    #[test]
    fn a_refused_request_is_not_sent_again() {
        let mut retry = client().retry();
        for code in [Code::AlreadyExists, Code::ResourceExhausted, Code::Internal, Code::Cancelled]
        {
            let refused = Error::new(code, "no");
            assert_eq!(retry.wait(refused.clone()), Err(refused));
        }
    }

    #[test]
    fn a_lost_connection_is_tried_again_until_the_time_is_over() {
        let lost = || Error::new(Code::Unavailable, "lost");
        let limit = Duration::from_millis(400);
        let told = Arc::new(AtomicU32::new(0));
        let tries = Arc::clone(&told);
        let client = client().with_retries(limit).on_retry(move |_, _| {
            tries.fetch_add(1, Ordering::SeqCst);
        });
        let mut retry = client.retry();
        let started = Instant::now();
        while retry.wait(lost()).is_ok() {}
        assert!(started.elapsed() >= limit);
        // 100, 200, and what is left.
        assert_eq!(told.load(Ordering::SeqCst), 3);
        retry.progressed();
        assert!(retry.wait(lost()).is_ok());
    }

    #[test]
    fn the_server_is_given_the_time_that_it_asks_for() {
        let delay = Duration::from_millis(150);
        let busy =
            Error { retry_delay: Some(delay), ..Error::new(Code::ResourceExhausted, "full") };
        let started = Instant::now();
        client().retry().wait(busy).unwrap();
        assert!(started.elapsed() >= delay);
    }

    #[test]
    fn a_stopped_client_waits_no_more() {
        let stop = crate::stop::Stop::default();
        let mut retry = client().with_stop(&stop).retry();
        stop.stop(crate::stop::Reason::ClientGone);
        let stopped = retry.wait(Error::new(Code::Unavailable, "lost")).unwrap_err();
        assert_eq!(stopped.code, Code::Cancelled);
    }
}
