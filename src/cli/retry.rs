//! When to try a call again, and how long to wait before.

use std::time::{Duration, Instant};

use clap::Args;
use grpcio::{RpcStatus, RpcStatusCode};

use super::failure::{describe, retry_delay, Failure, Result};
use super::interrupt;
use super::progress::Progress;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// The flag of every command that is a client.
#[derive(Args)]
pub struct RetryArgs {
    /// How long to go on trying, in seconds, after the connection was lost or the server said that
    /// trying again may help; counted anew after each progress. 0: fail at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry_for_secs: u64,
}

impl RetryArgs {
    /// For calls to the server at `addr`.
    pub fn start(&self, addr: &str) -> Retry {
        let limit = Duration::from_secs(self.retry_for_secs);
        Retry { addr: addr.to_owned(), limit, failing_since: None, delay: FIRST_DELAY }
    }
}

/// The retries of one command.
pub struct Retry {
    addr: String,
    limit: Duration,
    /// The first failure after the last progress. Time that passes while all goes well, or while
    /// the reader of our stdout takes nothing, does not count.
    failing_since: Option<Instant>,
    delay: Duration,
}

impl Retry {
    /// Makes a unary call until it succeeds, as long as trying again may help.
    pub fn unary<T>(
        &mut self,
        progress: &Progress,
        mut call: impl FnMut() -> grpcio::Result<T>,
    ) -> Result<T> {
        loop {
            match call().map_err(Failure::from) {
                // The query takes longer than the server allows, and would again.
                Err(Failure::Rpc(status)) if status.code() == RpcStatusCode::DEADLINE_EXCEEDED => {
                    return Err(Failure::Rpc(status))
                }
                Err(Failure::Rpc(status)) => self.wait(status, progress)?,
                done => {
                    self.progressed();
                    return done;
                }
            }
        }
    }

    /// Something was achieved: the next failure is a first one again.
    pub fn progressed(&mut self) {
        self.failing_since = None;
        self.delay = FIRST_DELAY;
    }

    /// Waits, if trying again may help; else `status` is the failure of the command.
    pub fn wait(&mut self, status: RpcStatus, progress: &Progress) -> Result<()> {
        let failing_for = self.failing_since.get_or_insert_with(Instant::now).elapsed();
        let no_server = self.no_server(&status);
        if !may_pass(&status) || failing_for >= self.limit {
            return Err(no_server.map_or(Failure::Rpc(status), Failure::Failed));
        }
        let asked_for = retry_delay(&status).unwrap_or_default();
        let delay = self.delay.max(asked_for).min(self.limit - failing_for);
        progress.note(&format!(
            "{}; trying again in {} ms (giving up after {} s)",
            no_server.unwrap_or_else(|| describe(&status)),
            delay.as_millis(),
            self.limit.as_secs()
        ));
        interrupt::sleep(delay)?;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        Ok(())
    }

    /// Says that there is no server, if that is what the status means: gRPC has no code for it.
    fn no_server(&self, status: &RpcStatus) -> Option<String> {
        let message = status.message();
        let of_grpc = ["failed to connect to all addresses", "DNS resolution failed"];
        let is_it = status.code() == RpcStatusCode::UNAVAILABLE
            && of_grpc.iter().any(|start| message.starts_with(start));
        is_it.then(|| format!("no server answers at {} ({})", self.addr, describe(status)))
    }
}

/// True when the same call may succeed later.
fn may_pass(status: &RpcStatus) -> bool {
    match status.code() {
        // A lost connection, or a server that is stopping, starting, or out of disk.
        RpcStatusCode::UNAVAILABLE => true,
        // Calls of this program have no deadline: it is one of the server's limits on time.
        RpcStatusCode::DEADLINE_EXCEEDED => true,
        // A limit that others use up; without RetryInfo it is this call that is too large.
        RpcStatusCode::RESOURCE_EXHAUSTED => retry_delay(status).is_some(),
        // What the C core says when a connection ends between the last data and the status.
        RpcStatusCode::UNKNOWN => status.message().contains("Stream removed"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::status;
    use super::*;

    #[test]
    fn a_refused_request_is_not_sent_again() {
        let mut retry = RetryArgs { retry_for_secs: 60 }.start("here:1");
        let taken = status(RpcStatusCode::ALREADY_EXISTS, "taken");
        assert!(retry.wait(taken, &Progress::hidden()).is_err());
        let too_large = status(RpcStatusCode::RESOURCE_EXHAUSTED, "too large");
        assert!(retry.wait(too_large, &Progress::hidden()).is_err());
    }

    #[test]
    fn a_lost_connection_is_tried_again_until_the_time_is_over() {
        let lost = || status(RpcStatusCode::UNAVAILABLE, "lost");
        let mut retry = RetryArgs { retry_for_secs: 1 }.start("here:1");
        let progress = Progress::hidden();
        let started = Instant::now();
        while retry.wait(lost(), &progress).is_ok() {}
        assert!(started.elapsed() >= Duration::from_secs(1));
        retry.progressed();
        assert!(retry.wait(lost(), &progress).is_ok());
    }
}
