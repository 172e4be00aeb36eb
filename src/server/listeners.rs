//! Where a server listens.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use grpcio::ServerCredentials;

use crate::error::{Error, Result};

use super::tls::Tls;

/// An address that a server listens on. It is written as clients take it: `127.0.0.1:50051` or
/// `unix:/run/bills.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// With the real port where port 0 was asked for.
    Tcp(SocketAddr),
    /// A socket file, by its absolute path. Its clients are one host with one connection where shares of
    /// limits are counted.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// From an entry of `Config::listen`.
    pub(super) fn resolve(listen: &str) -> Result<Address> {
        let unusable = |why: &dyn fmt::Display| {
            let expected = "expected HOST:PORT or unix:PATH";
            Error::Unusable(format!("cannot listen on {listen:?}: {why}; {expected}"))
        };
        if let Some(path) = listen.strip_prefix("unix:") {
            // gRPC takes it as a part of a URI, and would listen on another path, or on one that nobody calls.
            if path.contains(|c: char| "%?#,".contains(c) || c.is_control()) {
                return Err(unusable(
                    &"a path of a socket has no %, ?, #, comma or control character",
                ));
            }
            return std::path::absolute(path).map(Address::Unix).map_err(|e| unusable(&e));
        }
        let mut addresses = listen.to_socket_addrs().map_err(|e| unusable(&e))?;
        addresses.next().map(Address::Tcp).ok_or_else(|| unusable(&"it has no address"))
    }

    /// Whether only this machine reaches it.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }

    /// Has `grpc` listen here; where that is. A socket file has no TLS: its permissions say who may open it.
    pub(super) fn bind(self, grpc: &mut grpcio::Server, tls: Option<&Tls>) -> Result<Address> {
        let refused = |why: String| Error::Unavailable(format!("cannot listen on {self}: {why}"));
        if let Address::Unix(path) = &self {
            make_room(path).map_err(refused)?;
        }
        let credentials = match (&self, tls) {
            (Address::Tcp(_), Some(tls)) => tls.credentials(),
            _ => ServerCredentials::insecure(),
        };
        let port = grpc
            .add_listening_port(self.to_string(), credentials)
            .map_err(|_| refused(self.why_not()))?;
        Ok(match self {
            Address::Tcp(address) => Address::Tcp(SocketAddr::new(address.ip(), port)),
            unix => unix,
        })
    }

    /// gRPC does not say why it cannot listen; trying it says.
    fn why_not(&self) -> String {
        let tried = match self {
            Address::Tcp(address) => TcpListener::bind(address).map(drop),
            Address::Unix(path) => UnixListener::bind(path).and_then(|_| fs::remove_file(path)),
        };
        tried.map_or_else(
            |e| e.to_string(),
            |()| "gRPC refuses the address or the certificate".to_owned(),
        )
    }
}

/// Removes the socket of a server that is gone. gRPC would remove that of a live one too; when it ends it
/// removes its own. (Of two that start at one moment the second may still take the first one's place.)
fn make_room(path: &Path) -> std::result::Result<(), String> {
    match path.symlink_metadata() {
        Ok(it) if !it.file_type().is_socket() => return Err("there is a file already".to_owned()),
        Ok(_) => {}
        // Whoever tries to listen hears of anything else.
        Err(_) => return Ok(()),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err("another server is listening on it".to_owned()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    }
}
