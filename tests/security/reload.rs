//! Certificates that change while the server runs.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use billstream::client::{Client, ConnectOptions};
use billstream::proto::report::SummaryRequest;
use billstream::Server;

use crate::certificates::{Authority, Pair};
use crate::common::process::Process;
use crate::common::{alone, database, eventually};
use crate::{call, port, Guarded};

/// Threads that call, each 25 times a second.
const CALLERS: usize = 4;

fn paced(addr: &str, options: &ConnectOptions, is_over: &AtomicBool, calls: &AtomicUsize) {
    let client = Client::connect_with(addr, options).unwrap().with_retries(Duration::ZERO);
    while !is_over.load(Ordering::SeqCst) {
        client.summary(&SummaryRequest::default()).unwrap();
        calls.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(40));
    }
}

/// Calls over a connection each.
fn connecting(addr: &str, options: &ConnectOptions, is_over: &AtomicBool, calls: &AtomicUsize) {
    while !is_over.load(Ordering::SeqCst) {
        call(addr, options).unwrap();
        calls.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Does `work` while clients call, none of whose calls fails.
fn under_load(addr: &str, options: &ConnectOptions, work: impl FnOnce()) {
    let (is_over, calls, connections) = <(AtomicBool, AtomicUsize, AtomicUsize)>::default();
    /// Ends the load also where `work` panics.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for _ in 0..CALLERS {
            scope.spawn(|| paced(addr, options, &is_over, &calls));
        }
        scope.spawn(|| connecting(addr, options, &is_over, &connections));
        work();
    });
    let (calls, connections) = (calls.into_inner(), connections.into_inner());
    println!("{calls} calls, and {connections} over a connection each");
    assert!(calls > 100 && connections > 20, "{calls}, {connections}");
}

/// A server in a process of its own, whose log can be read.
fn process(guarded: &Guarded) -> Process {
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (cert, key) = (path(&guarded.files.cert), path(&guarded.files.key));
    Process::with_copy(&database(1000), &["--tls-cert", &cert, "--tls-key", &key])
}

impl Guarded {
    /// For `localhost`, and for a name by which it is told from the others.
    fn nth(&self, n: usize) -> Pair {
        self.authority.issue("server", &["localhost", &format!("nth-{n}.example")])
    }

    fn is_served(&self, addr: &str, n: usize) -> bool {
        let tls_server_name = Some(format!("nth-{n}.example"));
        call(addr, &ConnectOptions { tls_server_name, ..self.trusting() }).is_ok()
    }
}

#[test]
fn certificates_are_replaced_under_load_and_no_call_fails() {
    let _alone = alone();
    let guarded = Guarded::new();
    guarded.files.replace(&guarded.nth(0));
    let server = process(&guarded);
    let addr = server.addr.replace("127.0.0.1", "localhost");
    under_load(&addr, &guarded.trusting(), || {
        for n in 1..=4 {
            assert!(guarded.is_served(&addr, n - 1) && !guarded.is_served(&addr, n));
            guarded.files.replace(&guarded.nth(n));
            eventually("the new one is served", || guarded.is_served(&addr, n));
        }
        assert!(!guarded.is_served(&addr, 3), "the one of before is not");
    });
    assert_eq!(server.log().matches("tls_").count(), 0, "nothing was wrong: {}", server.log());
}

#[test]
fn a_bad_file_is_told_of_once_and_the_certificate_of_before_stays() {
    let _alone = alone();
    let guarded = Guarded::new();
    guarded.files.replace(&guarded.nth(0));
    let server = process(&guarded);
    let addr = server.addr.replace("127.0.0.1", "localhost");
    let new = guarded.nth(1);
    let half = new.cert[..new.cert.len() / 2].to_vec();
    let expired = guarded.authority.issue_expired("server", &["localhost", "nth-1.example"]);
    let key = || guarded.nth(1).key;
    let bad = [
        (Pair { cert: new.cert.clone(), key: key() }, "tls_key: the key is not that of the cert"),
        (Pair { cert: half, key: key() }, "tls_cert: it is not PEM, or not all of it"),
        (Pair { cert: Vec::new(), key: key() }, "tls_cert: there is no CERTIFICATE in it"),
        (Pair { cert: new.cert.clone(), key: b"\0".to_vec() }, "tls_key: it is no text"),
        (expired, "tls_cert: the certificate expired at Jan  2 00:00:00 2020 +00:00"),
    ];
    under_load(&addr, &guarded.trusting(), || {
        for (pair, why) in &bad {
            guarded.files.replace(pair);
            eventually(why, || server.log().contains(why));
            assert!(guarded.is_served(&addr, 0) && !guarded.is_served(&addr, 1), "{why}");
        }
        fs::remove_file(&guarded.files.key).unwrap();
        eventually("it is missed", || server.log().contains("key.pem: No such file"));
        assert!(guarded.is_served(&addr, 0));
        guarded.files.replace(&new);
        eventually("the good one is served", || guarded.is_served(&addr, 1));
    });
    let log = server.log();
    assert_eq!(log.matches("new connections have the certificate of before").count(), 6, "{log}");
}

#[test]
fn the_authority_of_clients_is_replaced_too() {
    let guarded = Guarded::new();
    let config = guarded.mutual();
    let client_ca = config.tls_client_ca.clone();
    let server = Server::start(config).unwrap();
    let addr = port(&server);
    let of_before = guarded.options("client", &[]);
    assert_eq!(call(&addr, &of_before), Ok(0));

    let other = Authority::new("another authority");
    let pair = other.issue("client", &[]);
    let (tls_cert, tls_key) = (Some(pair.cert), Some(pair.key));
    let options = ConnectOptions { tls_cert, tls_key, ..guarded.trusting() };
    assert!(call(&addr, &options).is_err());
    fs::write(client_ca, other.pem()).unwrap();
    eventually("clients of it may call", || call(&addr, &options) == Ok(0));
    assert!(call(&addr, &of_before).is_err());
}
