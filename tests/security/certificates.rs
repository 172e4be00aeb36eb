//! Certificates of every kind.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    date_time_ymd, BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType,
};

/// A certificate and its key, PEM.
pub struct Pair {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

/// Who signs.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> Vec<u8> {
        self.pem.clone().into_bytes()
    }

    /// A certificate that has a common name and these alternative ones; with a colon one is a URI.
    pub fn issue(&self, common_name: &str, names: &[&str]) -> Pair {
        self.sign(&params(common_name, names))
    }

    /// The same, whose time is over.
    pub fn issue_expired(&self, common_name: &str, names: &[&str]) -> Pair {
        let mut params = params(common_name, names);
        params.not_after = date_time_ymd(2020, 1, 2);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert: cert.into_bytes(), key: key.serialize_pem().into_bytes() }
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains(':'));
    let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
    params.subject_alt_names.extend(uris);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params
}

/// A certificate and its key in files of a directory.
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub fn write(dir: &Path, pair: &Pair) -> Files {
        let files = Files { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        files.replace(pair);
        files
    }

    pub fn replace(&self, pair: &Pair) {
        fs::write(&self.cert, &pair.cert).unwrap();
        fs::write(&self.key, &pair.key).unwrap();
    }
}
