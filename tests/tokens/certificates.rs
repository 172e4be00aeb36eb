//! Certificates of clients beside tokens: who they are, and what they may.

use std::fs;

use billstream::client::{Client, Code, ConnectOptions};
use billstream::proto::report::SummaryRequest;
use billstream::Config;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use crate::common::*;
use crate::{line, log_lines, some_token, TokenFile};

/// A certificate and its key, PEM.
type Pair = (String, String);

/// An authority, with a certificate for the server and one of each of the clients.
struct Certificates {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Certificates {
        let mut params = params("an authority", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        Certificates { ca, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, common_name: &str, other: Option<SanType>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params(common_name, other).signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// A client with a certificate, and perhaps a token.
    fn client(&self, addr: &str, (cert, key): &Pair, token: Option<&str>) -> Client {
        let options = ConnectOptions {
            tls_ca: Some(self.ca.clone().into_bytes()),
            tls_cert: Some(cert.clone().into_bytes()),
            tls_key: Some(key.clone().into_bytes()),
            token: token.map(str::to_owned),
            ..ConnectOptions::default()
        };
        Client::connect_with(addr, &options).unwrap()
    }
}

fn params(common_name: &str, other: Option<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names.extend(other);
    params
}

fn uri(text: &str) -> Option<SanType> {
    Some(SanType::URI(text.try_into().unwrap()))
}

/// How a summary ended, and an upload of one invoice.
fn read_and_write(client: &Client, invoice_id: &str) -> [Code; 2] {
    let ended = |error: billstream::client::Error| error.code;
    let read = client.summary(&SummaryRequest::new()).map_or_else(ended, |_| Code::Ok);
    let written = client.upload().and_then(|mut upload| {
        upload.send(&invoice(invoice_id, 1))?;
        upload.commit(invoice_id)
    });
    [read, written.map_or_else(ended, |_| Code::Ok)]
}

#[test]
fn a_certificate_is_known_by_its_name_and_has_the_rights_of_its_line() {
    log_lines::keep();
    let certificates = Certificates::new();
    let token = some_token(90);
    let text = "spiffe://billing/batch write cert\nthe-reports read cert\n".to_owned()
        + &line("of-a-token", "read", &token);
    let file = TokenFile::new(&text);
    let path = |name: &str, text: &str| {
        let path = file.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let server = certificates.issue("server", Some(SanType::IpAddress([127, 0, 0, 1].into())));
    let config = Config {
        tls_cert: path("cert.pem", &server.0),
        tls_key: path("key.pem", &server.1),
        tls_client_ca: path("ca.pem", &certificates.ca),
        ..file.config()
    };
    let mut server = TestServer::start(config);
    let addr = server.addr();
    let batch = certificates.issue("batch", uri("spiffe://billing/batch"));
    let reports = certificates.issue("the-reports", uri("spiffe://billing/reports"));
    let unlisted = certificates.issue("without-a-line", None);
    let (ok, denied) = (Code::Ok, Code::PermissionDenied);
    for (id, pair, token, expected) in [
        ("by-uri", &batch, None, [denied, ok]),
        ("by-common-name", &reports, None, [ok, denied]),
        ("unlisted", &unlisted, None, [ok, ok]),
        ("a-token-first", &batch, Some(&token[..]), [ok, denied]),
        ("a-wrong-token", &unlisted, Some("bst_wrong"), [Code::Unauthenticated; 2]),
    ] {
        let client = certificates.client(&addr, pair, token);
        assert_eq!(read_and_write(&client, id), expected, "{id}");
    }
    let line = "certificate without the right read (spiffe://billing/batch)";
    eventually("the log has its name", || !log_lines::with(line).is_empty());
    // What was let in is told of by its name, which limits are kept by.
    eventually("the log has whose call it was", || !log_lines::with("without-a-line").is_empty());
    server.stop();
}
