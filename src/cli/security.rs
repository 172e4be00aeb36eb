//! The flags of TLS and of tokens.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use billstream::client::{Client, ConnectOptions};
use billstream::Error;

use super::failure::{Failure, Result};

/// What a client shows, and asks of its server. The variables are not those of a server's own settings, which
/// may be in the same environment.
#[derive(Args)]
#[command(next_help_heading = "TLS and tokens")]
pub struct Security {
    /// Speak TLS, with a server whose certificate one of these authorities has signed: a PEM file
    #[arg(long, value_name = "FILE", env = "BILLSTREAM_CLIENT_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// The certificate of this client, for a server that asks for one: a PEM file
    #[arg(long, value_name = "FILE", env = "BILLSTREAM_CLIENT_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert: a PEM file, not encrypted
    #[arg(long, value_name = "FILE", env = "BILLSTREAM_CLIENT_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// The name in the server's certificate, where it is not the host of --addr
    #[arg(long, value_name = "NAME", env = "BILLSTREAM_CLIENT_TLS_SERVER_NAME")]
    tls_server_name: Option<String>,
    /// A file whose first line is the token that goes with every call
    #[arg(long, value_name = "FILE", env = "BILLSTREAM_CLIENT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// The flags by the names that clap has for them, for what goes without them.
pub const FLAGS: [(&str, &str); 5] = [
    ("tls_ca", "--tls-ca <FILE>"),
    ("tls_cert", "--tls-cert <FILE>"),
    ("tls_key", "--tls-key <FILE>"),
    ("tls_server_name", "--tls-server-name <NAME>"),
    ("token_file", "--token-file <FILE>"),
];

impl Security {
    /// A client of the server at `addr`.
    pub fn connect(&self, addr: &str, through_proxy: bool) -> Result<Client> {
        let options = ConnectOptions {
            tls_ca: read("--tls-ca", &self.tls_ca)?,
            tls_cert: read("--tls-cert", &self.tls_cert)?,
            tls_key: read("--tls-key", &self.tls_key)?,
            tls_server_name: self.tls_server_name.clone(),
            token: self.token_file.as_deref().map(token).transpose()?,
            through_proxy,
        };
        Client::connect_with(addr, &options).map_err(|error| match error {
            Error::Invalid(violations) => {
                let wrong = violations.iter().map(|it| {
                    let flag = it.field.replace('_', "-").replace("token", "token-file");
                    format!("--{flag}: {}", it.description)
                });
                Failure::Usage(wrong.collect::<Vec<_>>().join("\n"))
            }
            other => other.into(),
        })
    }
}

fn read(flag: &str, path: &Option<PathBuf>) -> Result<Option<Vec<u8>>> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|e| Failure::Usage(format!("{flag} {}: {e}", path.display())))
    };
    path.as_ref().map(read).transpose()
}

fn token(path: &Path) -> Result<String> {
    let wrong = |why: String| Failure::Usage(format!("--token-file {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() => Ok(token.to_owned()),
        _ => Err(wrong("its first line is empty".to_owned())),
    }
}
