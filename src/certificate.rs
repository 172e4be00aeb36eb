//! Certificates and keys as PEM: what is wrong with them, before gRPC has them. It would refuse a handshake after
//! the other, and not say why.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::certificate::{Validity, X509Certificate};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// A file of certificates is a few KiB; that of all public authorities is 200.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why a text is not what it should be.
type Result<T> = std::result::Result<T, String>;

/// Opens a file that is looked at while a server runs. A pipe would keep whoever opens it waiting, and a stop with it.
pub fn open(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// The text of a PEM file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(format!("{}: longer than {MAX_FILE_BYTES} bytes", path.display())),
        false => Ok(text),
    }
}

/// A certificate: the first of a PEM text, which may have more that lead from it to its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    serial: String,
    /// In seconds since 1970, with their texts.
    not_before: (i64, String),
    not_after: (i64, String),
    /// Of its public key what is in the file of the private key too.
    public: Vec<u8>,
}

impl Certificate {
    /// Refuses a text of which any block is no certificate.
    pub fn read(pem: &[u8]) -> Result<Certificate> {
        let certificates = read_all(pem)?;
        // OK because `read_all` gives at least one.
        let certificate = parse(&certificates[0])?;
        let Validity { not_before, not_after } = certificate.validity();
        let public = certificate.public_key().parsed();
        Ok(Certificate {
            serial: certificate.raw_serial_as_string(),
            not_before: (not_before.timestamp(), not_before.to_string()),
            not_after: (not_after.timestamp(), not_after.to_string()),
            public: match public.map_err(|error| format!("its public key: {error}"))? {
                PublicKey::RSA(key) => key.modulus.to_vec(),
                PublicKey::EC(point) => point.data().to_vec(),
                _ => return Err("its key is neither RSA nor EC, which gRPC needs".to_owned()),
            },
        })
    }

    /// Refuses a text without the private key of this certificate.
    pub fn check_key(&self, pem: &[u8]) -> Result<()> {
        let is_encrypted = |text: &str| pem.windows(text.len()).any(|it| it == text.as_bytes());
        if ENCRYPTED.into_iter().any(is_encrypted) {
            return Err("the key is encrypted; `openssl pkey` writes it as it has to be".to_owned());
        }
        let mut keys =
            blocks(pem)?.into_iter().filter(|block| block.label.ends_with("PRIVATE KEY"));
        let key = keys.next().ok_or("there is no PRIVATE KEY in it")?;
        // In each of its forms a private key has its public one with it. (One of EC may be without, from a few
        // tools.)
        let has_public = !self.public.is_empty()
            && key.contents.windows(self.public.len()).any(|bytes| bytes == self.public);
        match has_public {
            true => Ok(()),
            false => Err("the key is not that of the certificate (or is of EC without its public \
                          part, which `openssl pkey` adds)"
                .to_owned()),
        }
    }

    /// Why clients will refuse it, by its dates.
    pub fn out_of_date(&self) -> Option<String> {
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        if now > self.not_after.0 {
            return Some(format!("the certificate expired at {}", self.not_after.1));
        }
        (now < self.not_before.0)
            .then(|| format!("the certificate is not valid before {}", self.not_before.1))
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "serial {}, valid until {}", self.serial, self.not_after.1)
    }
}

/// Refuses a text that is not certificates of authorities.
pub fn check_authorities(pem: &[u8]) -> Result<()> {
    read_all(pem)?.iter().try_for_each(|pem| parse(pem).map(drop))
}

/// What an encrypted key says, in the newer and in the older form.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// The certificates of a text, at least one.
fn read_all(pem: &[u8]) -> Result<Vec<Pem>> {
    let mut blocks = blocks(pem)?;
    blocks.retain(|block| block.label.ends_with("CERTIFICATE"));
    match blocks.is_empty() {
        true => Err("there is no CERTIFICATE in it".to_owned()),
        false => Ok(blocks),
    }
}

fn blocks(pem: &[u8]) -> Result<Vec<Pem>> {
    // To gRPC it is a C string.
    if pem.contains(&0) {
        return Err("it is no text".to_owned());
    }
    let blocks = Pem::iter_from_buffer(pem).collect::<std::result::Result<Vec<_>, _>>();
    blocks.map_err(|error| format!("it is not PEM, or not all of it: {error}"))
}

fn parse(pem: &Pem) -> Result<X509Certificate<'_>> {
    let parsed = X509Certificate::from_der(&pem.contents);
    parsed.map(|(_, certificate)| certificate).map_err(|error| format!("a certificate: {error}"))
}
