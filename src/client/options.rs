//! What a connection may need beside its address.

use std::net::IpAddr;

use crate::certificate::{check_authorities, Certificate};
use crate::error::{Error, Result};

/// How to connect, where an address alone does not say it. What is `None` or `false` is not so.
///
/// ```no_run
/// use billstream::client::{Client, ConnectOptions};
///
/// let options = ConnectOptions {
///     tls_ca: Some(std::fs::read("ca.pem")?),
///     token: Some("the-token".to_owned()),
///     ..ConnectOptions::default()
/// };
/// let client = Client::connect_with("bills.example:50051", &options)?;
/// # client.summary(&Default::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// Speaks TLS with a server whose certificate one of these has signed: PEM. (The public authorities are in
    /// `/etc/ssl/certs/ca-certificates.crt` or thereabouts.)
    pub tls_ca: Option<Vec<u8>>,
    /// The certificate of this client and those between it and its authority, PEM, for a server that asks for one.
    pub tls_cert: Option<Vec<u8>>,
    /// The key of `tls_cert`, PEM, not encrypted.
    pub tls_key: Option<Vec<u8>>,
    /// The name that the server's certificate has, where it is not the host of the address: behind a tunnel, or
    /// at a bare IP address.
    pub tls_server_name: Option<String>,
    /// Goes with every call, as `authorization: Bearer TOKEN`. Without `tls_ca` it is refused where it would
    /// leave this machine.
    pub token: Option<String>,
    /// Goes through the proxy that `http_proxy`, `https_proxy` and `no_proxy` name in the environment; otherwise
    /// they do not count.
    pub through_proxy: bool,
}

impl ConnectOptions {
    /// Refuses what gRPC would take, and then fail at each call.
    pub(super) fn check(&self, addr: &str) -> Result<()> {
        let wrong = |name: &'static str| move |why: String| Error::invalid(name, why);
        match &self.tls_ca {
            Some(ca) => check_authorities(ca).map_err(wrong("tls_ca"))?,
            None => self.check_without_tls(addr)?,
        }
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                let cert = Certificate::read(cert).map_err(wrong("tls_cert"))?;
                cert.check_key(key).map_err(wrong("tls_key"))?;
            }
            (Some(_), None) => return Err(Error::invalid("tls_cert", "needs tls_key")),
            (None, Some(_)) => return Err(Error::invalid("tls_key", "needs tls_cert")),
        }
        match &self.token {
            Some(token) if !is_token(token) => {
                Err(Error::invalid("token", "expected visible ASCII characters"))
            }
            _ => Ok(()),
        }
    }

    fn check_without_tls(&self, addr: &str) -> Result<()> {
        let of_tls = [
            ("tls_cert", self.tls_cert.is_some()),
            ("tls_key", self.tls_key.is_some()),
            ("tls_server_name", self.tls_server_name.is_some()),
        ];
        if let Some((name, _)) = of_tls.into_iter().find(|(_, is_given)| *is_given) {
            return Err(Error::invalid(name, "needs tls_ca: without it there is no TLS"));
        }
        let stays_here = is_local(addr) && !self.through_proxy;
        match self.token.is_some() && !stays_here {
            true => Err(Error::invalid(
                "token",
                format!("would go to {addr} for everyone on the way to read: it needs tls_ca"),
            )),
            false => Ok(()),
        }
    }
}

fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether what is sent to `addr` stays on this machine.
fn is_local(addr: &str) -> bool {
    if addr.starts_with("unix:") {
        return true;
    }
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stays_on_this_machine_where_it_could_be_read() {
        let refused = |addr: &str, through_proxy| {
            let token = Some("secret".to_owned());
            let options = ConnectOptions { token, through_proxy, ..ConnectOptions::default() };
            let error = options.check(addr).err()?.to_string();
            assert!(!error.contains("secret"), "{error}");
            Some(error)
        };
        for here in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/a.sock"] {
            assert_eq!(refused(here, false), None);
            assert!(refused(here, true).is_some(), "{here}");
        }
        let elsewhere = [
            "10.0.0.1:1",
            "0.0.0.0:1",
            "[::]:1",
            "localhost.example:1",
            "127.0.0.1.example:1",
            "dns:///127.0.0.1.example:1",
        ];
        for elsewhere in elsewhere {
            assert!(refused(elsewhere, false).is_some_and(|why| why.contains("needs tls_ca")));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_no_token() {
        for token in ["", "a b", "a\n", "é", "a\0"] {
            let options =
                ConnectOptions { token: Some(token.to_owned()), ..ConnectOptions::default() };
            assert!(options.check("127.0.0.1:1").is_err(), "{token:?}");
        }
    }
}
