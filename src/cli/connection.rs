//! The flags that say which server a command talks to, and how.

use clap::Args;

use billstream::client::Stub;

use super::retry::{Retry, RetryArgs};

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
    #[command(flatten)]
    retry: RetryArgs,
}

impl Connection {
    /// A client that connects at its first call.
    pub fn client(&self) -> Stub {
        match self.http_proxy {
            true => Stub::through_proxy(&self.addr),
            false => Stub::new(&self.addr),
        }
    }

    /// The retries of a command.
    pub fn retry(&self) -> Retry {
        self.retry.start(&self.addr)
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
