//! TLS of the server: its certificate, which may be replaced while it serves, and who its clients must be.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use grpcio::{
    CertificateRequestType, ServerCredentials, ServerCredentialsBuilder, ServerCredentialsFetcher,
};

use crate::certificate::{self, Certificate};
use crate::config::Config;
use crate::error::{Error, Result, Violation};

use super::listeners::Address;
use super::watch::Watch;

/// Refuses an address that other machines reach where nobody has to show who they are.
pub fn check_public(config: &Config, address: &Address) -> Result<()> {
    let is_open = !has(&config.tls_cert) && !config.insecure_public;
    match is_open && !address.is_local() {
        true => Err(Error::invalid(
            "listen",
            format!(
                "{address} is for more than this machine, and everyone there could read and call, since there \
                 is no TLS: set tls_cert and tls_key, or insecure_public"
            ),
        )),
        false => Ok(()),
    }
}

/// The certificate in force, and the thread that looks for another one.
pub struct Tls {
    in_force: Arc<InForce>,
    request: CertificateRequestType,
    _watch: Watch,
}

impl Tls {
    /// `None` where the configuration has none.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a file that cannot be used. One that is out of date only gets a warning: the server
    /// is there when the file is replaced.
    pub fn start(config: &Config) -> Result<Option<Tls>> {
        if !has(&config.tls_cert) {
            return Ok(None);
        }
        let invalid = |violation| Error::Invalid([violation].into_iter().collect());
        let files = Files::read(config).map_err(invalid)?;
        let certificate = files.check().map_err(invalid)?;
        log::info!("TLS with the certificate of {}: {certificate}", config.tls_cert.display());
        if let Some(why) = certificate.out_of_date() {
            log::warn!("tls_cert: {why}; clients will refuse it");
        }
        let request = match files.client_ca {
            Some(_) => CertificateRequestType::RequestAndRequireClientCertificateAndVerify,
            None => CertificateRequestType::DontRequestClientCertificate,
        };
        let in_force = Arc::new(InForce(Mutex::new((1, files.clone()))));
        let taker = Arc::clone(&in_force);
        let config = config.clone();
        let read = move || Files::read(&config);
        let watch =
            Watch::start("billstream-tls", Ok(files), read, move |files| taker.replace(files))?;
        Ok(Some(Tls { in_force, request, _watch: watch }))
    }

    /// For one address.
    pub fn credentials(&self) -> ServerCredentials {
        let fetcher = Fetcher { in_force: Arc::clone(&self.in_force), given: AtomicU64::new(0) };
        ServerCredentials::with_fetcher(Box::new(fetcher), self.request)
    }
}

/// Whether a setting is given.
fn has(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// The files of TLS, as they are read.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn read(config: &Config) -> std::result::Result<Files, Violation> {
        let read =
            |name, path: &Path| certificate::read(path).map_err(|why| Violation::new(name, why));
        let client_ca = &config.tls_client_ca;
        Ok(Files {
            cert: read("tls_cert", &config.tls_cert)?,
            key: read("tls_key", &config.tls_key)?,
            client_ca: has(client_ca).then(|| read("tls_client_ca", client_ca)).transpose()?,
        })
    }

    /// The certificate, where they can be used.
    fn check(&self) -> std::result::Result<Certificate, Violation> {
        let wrong = |name| move |why: String| Violation::new(name, why);
        let certificate = Certificate::read(&self.cert).map_err(wrong("tls_cert"))?;
        certificate.check_key(&self.key).map_err(wrong("tls_key"))?;
        if let Some(client_ca) = &self.client_ca {
            certificate::check_authorities(client_ca).map_err(wrong("tls_client_ca"))?;
        }
        Ok(certificate)
    }
}

/// The files that new connections are served with, and how often they were replaced.
struct InForce(Mutex<(u64, Files)>);

impl InForce {
    /// Takes new files, unless they are bad or out of date: then those in force stay.
    fn replace(&self, files: &std::result::Result<Files, Violation>) {
        let checked = files.as_ref().map_err(Violation::clone).and_then(|files| {
            let certificate = files.check()?;
            match certificate.out_of_date() {
                Some(why) => Err(Violation::new("tls_cert", why)),
                None => Ok((files.clone(), certificate)),
            }
        });
        match checked {
            Ok((files, certificate)) => {
                let mut in_force = self.0.lock().unwrap_or_else(|e| e.into_inner());
                *in_force = (in_force.0 + 1, files);
                log::info!("new connections have the new certificate: {certificate}");
            }
            Err(Violation { field, description }) => {
                log::warn!("{field}: {description}; new connections have the certificate of before")
            }
        }
    }
}

/// What gRPC asks at each handshake on an address, on a thread that must not wait: the lock is never held for
/// longer than a copy takes.
struct Fetcher {
    in_force: Arc<InForce>,
    /// The files that it was given.
    given: AtomicU64,
}

impl ServerCredentialsFetcher for Fetcher {
    fn fetch(&self) -> std::result::Result<Option<ServerCredentialsBuilder>, Box<dyn StdError>> {
        let in_force = self.in_force.0.lock().unwrap_or_else(|e| e.into_inner());
        let (version, files) = &*in_force;
        if self.given.swap(*version, Ordering::Relaxed) == *version {
            return Ok(None);
        }
        // What is asked of clients was said with the credentials; but the C core ends the process where it gets
        // no authorities, also where it asks for nothing.
        let authorities = files.client_ca.as_ref().unwrap_or(&files.cert);
        let builder = ServerCredentialsBuilder::new()
            .root_cert(authorities.clone(), CertificateRequestType::DontRequestClientCertificate)
            .add_cert(files.cert.clone(), files.key.clone());
        Ok(Some(builder))
    }
}
