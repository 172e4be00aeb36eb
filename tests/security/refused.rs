//! Whoever is not let in: its code, and nothing in the answer that it should not know.

use billstream::client::{Code, ConnectOptions};
use billstream::{Config, Server};

use crate::certificates::Authority;
use crate::{call, port, Guarded};

/// A client that is refused at `addr` with `code`, and told `why`.
fn assert_refused(addr: &str, options: &ConnectOptions, code: Code, why: &str) {
    let error = call(addr, options).unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(why), "{why:?} is not in {error}");
    for secret in ["friend", "clients.pem", "cert.pem", "the authority"] {
        assert!(!error.message.contains(secret), "{error}");
    }
}

fn assert_no_connection(addr: &str, options: &ConnectOptions, why: &str) {
    let why = format!("no connection to {addr}: it{why}");
    assert_refused(addr, options, Code::Unavailable, &why);
}

const NOT_TRUSTED: &str = "s certificate is out of date, or none that tls_ca has signed (";
const MAY_WANT_A_CERTIFICATE: &str =
    " ended the connection: it may want a certificate of this client (tls_cert), or another one (";

#[test]
fn a_client_finds_a_server_that_it_does_not_trust() {
    let guarded = Guarded::new();
    let server = Server::start(guarded.open()).unwrap();
    let addr = port(&server);
    assert_eq!(call(&addr, &guarded.trusting()), Ok(0));
    let stranger = Authority::new("a stranger").pem();
    let options = ConnectOptions { tls_ca: Some(stranger), ..ConnectOptions::default() };
    assert_no_connection(&addr, &options, NOT_TRUSTED);

    let tls_server_name = Some("other.example".to_owned());
    let options = ConnectOptions { tls_server_name, ..guarded.trusting() };
    let other_name = "s certificate has another name (see tls_server_name) (";
    assert_no_connection(&addr, &options, other_name);
}

#[test]
fn a_certificate_whose_time_is_over_is_served_and_not_believed() {
    let guarded = Guarded::new();
    guarded.files.replace(&guarded.authority.issue_expired("server", &["localhost"]));
    let server = Server::start(guarded.open()).unwrap();
    assert_no_connection(&port(&server), &guarded.trusting(), NOT_TRUSTED);
}

#[test]
fn a_name_that_is_not_that_of_the_address_may_be_said() {
    let guarded = Guarded::new();
    guarded.files.replace(&guarded.authority.issue("server", &["bills.example"]));
    let server = Server::start(guarded.open()).unwrap();
    let tls_server_name = Some("bills.example".to_owned());
    let options = ConnectOptions { tls_server_name, ..guarded.trusting() };
    assert_eq!(call(&port(&server), &options), Ok(0));
}

#[test]
fn a_client_without_a_certificate_that_counts_is_refused() {
    let guarded = Guarded::new();
    let server = Server::start(guarded.mutual()).unwrap();
    let addr = port(&server);
    assert_eq!(call(&addr, &guarded.options("anyone", &[])), Ok(0));
    assert_no_connection(&addr, &guarded.trusting(), MAY_WANT_A_CERTIFICATE);

    let expired = guarded.authority.issue_expired("anyone", &[]);
    let of_a_stranger = Authority::new("a stranger").issue("friend", &["friend"]);
    for pair in [expired, of_a_stranger] {
        let (tls_cert, tls_key) = (Some(pair.cert), Some(pair.key));
        let options = ConnectOptions { tls_cert, tls_key, ..guarded.trusting() };
        assert_no_connection(&addr, &options, MAY_WANT_A_CERTIFICATE);
    }
}

#[test]
fn a_client_that_is_not_on_the_list_is_refused() {
    let guarded = Guarded::new();
    let tls_allowed_clients = vec!["friend".to_owned()];
    let config = Config { tls_allowed_clients, ..guarded.mutual() };
    let server = Server::start(config).unwrap();
    assert_eq!(call(&port(&server), &guarded.options("friend", &[])), Ok(0));
    let names = ["friend.example", "Friend"];
    let error = call(&port(&server), &guarded.options("friendly", &names)).unwrap_err();
    assert_eq!(error.to_string(), "PERMISSION_DENIED: this client is not allowed");
    assert_eq!(server.metrics().clients_refused.get(), 1);
}

#[test]
fn who_speaks_without_tls_to_a_port_with_it_is_refused_and_the_other_way_round() {
    let guarded = Guarded::new();
    let secure = Server::start(guarded.open()).unwrap();
    let may_want_tls = " ended the connection: it may want TLS (tls_ca) (";
    assert_no_connection(&port(&secure), &ConnectOptions::default(), may_want_tls);

    let dir = tempfile::tempdir().unwrap();
    let listen = vec!["127.0.0.1:0".to_owned()];
    let db = dir.path().join("bills.db");
    let plain = Server::start(Config { db, listen, ..Config::default() }).unwrap();
    assert_no_connection(&port(&plain), &guarded.trusting(), " does not speak TLS (");
    assert_eq!(call(&port(&plain), &ConnectOptions::default()), Ok(0));
}

/// What cannot be is told before there is a connection.
#[test]
fn options_that_cannot_be_are_refused() {
    let guarded = Guarded::new();
    let [one, other] = [guarded.options("one", &[]), guarded.options("other", &[])];
    let text = || Some(b"text".to_vec());
    let refused = [
        (ConnectOptions { tls_ca: text(), ..one.clone() }, "tls_ca: there is no CERTIFICATE in it"),
        (ConnectOptions { tls_ca: None, ..one.clone() }, "tls_cert: needs tls_ca"),
        (ConnectOptions { tls_key: None, ..one.clone() }, "tls_cert: needs tls_key"),
        (ConnectOptions { tls_cert: None, ..one.clone() }, "tls_key: needs tls_cert"),
        (ConnectOptions { tls_key: text(), ..one.clone() }, "tls_key: there is no PRIVATE KEY"),
        (ConnectOptions { tls_key: other.tls_key, ..one.clone() }, "tls_key: the key is not that"),
        (ConnectOptions { tls_cert: Some(vec![0]), ..one.clone() }, "tls_cert: it is no text"),
    ];
    for (options, why) in refused {
        let error = billstream::Client::connect_with("localhost:1", &options).unwrap_err();
        assert!(error.to_string().starts_with(why), "{error}");
    }
}
