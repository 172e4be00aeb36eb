//! The flags that say which server a command talks to, and how.

use std::time::Duration;

use clap::Args;

use billstream::client::Client;

use super::failure::describe;
use super::interrupt;
use super::progress::Progress;

/// The flags of every command that is a client.
#[derive(Args)]
pub struct Connection {
    /// The server, as HOST:PORT
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "BILLSTREAM_ADDR",
        default_value = "127.0.0.1:50051",
        value_parser = address
    )]
    addr: String,
    /// Go through the proxy that http_proxy, https_proxy and no_proxy name; by default they do not
    /// count
    #[arg(long, env = "BILLSTREAM_HTTP_PROXY",
        value_parser = clap::builder::BoolishValueParser::new())]
    http_proxy: bool,
    /// How long to go on trying, in seconds, after the connection was lost or the server said that
    /// trying again may help; counted anew after each progress. 0: fail at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry_for_secs: u64,
}

impl Connection {
    /// A client that connects at its first call, and notes its further tries beside `progress`.
    pub fn client(&self, progress: &Progress) -> Client {
        let client = match self.http_proxy {
            true => Client::connect_through_proxy(&self.addr),
            false => Client::connect(&self.addr),
        };
        let (seconds, note) = (self.retry_for_secs, progress.notes());
        client.with_retries(Duration::from_secs(seconds)).with_stop(&interrupt::stop()).on_retry(
            move |error, delay| {
                note(&format!(
                    "{}; trying again in {} ms (giving up after {seconds} s)",
                    describe(error),
                    delay.as_millis()
                ))
            },
        )
    }
}

/// Checks HOST:PORT. gRPC itself would take a bare host, and then port 443.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("expected HOST:PORT such as 127.0.0.1:50051".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for right in ["127.0.0.1:50051", "localhost:1", "[::1]:50051"] {
            assert_eq!(address(right).as_deref(), Ok(right));
        }
        for wrong in ["", "localhost", ":50051", "localhost:", "localhost:0", "localhost:65536"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
