//! TLS: who is let in, who is not and what it is told, and certificates that change while the server runs.

#[path = "../common/mod.rs"]
mod common;

mod allowed;
mod certificates;
mod commands;
mod refused;
mod reload;
mod starts;
mod tokens;

use std::time::Duration;

use billstream::client::{Client, ConnectOptions};
use billstream::proto::report::SummaryRequest;
use billstream::{client, Config, Server};

use certificates::{Authority, Files};

/// One authority for the server and its clients, and a server that asks for certificates of it.
struct Guarded {
    dir: tempfile::TempDir,
    authority: Authority,
    files: Files,
}

impl Guarded {
    fn new() -> Guarded {
        // Many handshakes fail here, and the core would say so on stderr. This process has no logger.
        log::set_max_level(log::LevelFilter::Error);
        billstream::server::take_core_log();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("the authority");
        let files =
            Files::write(dir.path(), &authority.issue("server", &["localhost", "127.0.0.1"]));
        Guarded { dir, authority, files }
    }

    /// With TLS, for clients of any kind.
    fn open(&self) -> Config {
        Config {
            db: self.dir.path().join("bills.db"),
            listen: vec!["127.0.0.1:0".to_owned()],
            tls_cert: self.files.cert.clone(),
            tls_key: self.files.key.clone(),
            ..Config::default()
        }
    }

    /// For clients with a certificate of the authority.
    fn mutual(&self) -> Config {
        let tls_client_ca = self.dir.path().join("clients.pem");
        std::fs::write(&tls_client_ca, self.authority.pem()).unwrap();
        Config { tls_client_ca, ..self.open() }
    }

    /// What a client of the authority with a certificate of these names connects with.
    fn options(&self, common_name: &str, names: &[&str]) -> ConnectOptions {
        let pair = self.authority.issue(common_name, names);
        ConnectOptions { tls_cert: Some(pair.cert), tls_key: Some(pair.key), ..self.trusting() }
    }

    /// What a client without a certificate connects with.
    fn trusting(&self) -> ConnectOptions {
        ConnectOptions { tls_ca: Some(self.authority.pem()), ..ConnectOptions::default() }
    }
}

fn port(server: &Server) -> String {
    format!("localhost:{}", server.addr().port())
}

/// A call over a connection of its own, which is tried once.
fn call(addr: &str, options: &ConnectOptions) -> client::Result<i64> {
    let client = Client::connect_with(addr, options).unwrap().with_retries(Duration::ZERO);
    client.summary(&SummaryRequest::default()).map(|summary| summary.invoice_count)
}
