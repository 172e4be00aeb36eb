//! What a server does not start with.

use std::fs;

use billstream::{Config, Error, Server};

use crate::Guarded;

/// Starting it fails with `why`, and leaves no database.
fn assert_refused(config: Config, why: &str) {
    let db = config.db.clone();
    let error = Server::start(config).err().unwrap();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(error.to_string().starts_with(why), "{error}");
    assert!(!db.exists());
}

#[test]
fn files_that_cannot_be_used_are_refused_by_the_setting_that_names_them() {
    let guarded = Guarded::new();
    let write = |name: &str, text: &[u8]| {
        let path = guarded.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let good = || guarded.mutual();
    let other_key = write("other.pem", &guarded.authority.issue("other", &[]).key);
    let text = write("text.pem", b"text");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    let encrypted = write("encrypted.pem", encrypted.as_bytes());
    let key = guarded.files.key.clone();
    let refused = [
        (
            Config { tls_key: other_key, ..good() },
            "tls_key: the key is not that of the certificate",
        ),
        (Config { tls_key: encrypted, ..good() }, "tls_key: the key is encrypted; `openssl pkey`"),
        (Config { tls_key: text.clone(), ..good() }, "tls_key: there is no PRIVATE KEY in it"),
        (Config { tls_key: "/none.pem".into(), ..good() }, "tls_key: /none.pem: No such file"),
        (Config { tls_cert: key.clone(), ..good() }, "tls_cert: there is no CERTIFICATE in it"),
        (Config { tls_cert: "/proc".into(), ..good() }, "tls_cert: /proc: it is no regular file"),
        (Config { tls_client_ca: text, ..good() }, "tls_client_ca: there is no CERTIFICATE in it"),
        (Config { tls_client_ca: key, ..good() }, "tls_client_ca: there is no CERTIFICATE in it"),
    ];
    for (config, why) in refused {
        assert_refused(config, why);
    }
}

#[test]
fn settings_of_tls_need_each_other() {
    let guarded = Guarded::new();
    let (good, none) = (guarded.mutual(), Config::default());
    let tls_allowed_clients = vec!["friend".to_owned()];
    let without = |config: Config| Config { db: good.db.clone(), ..config };
    let (tls_cert, tls_key) = (good.tls_cert.clone(), good.tls_key.clone());
    let tls_client_ca = good.tls_client_ca.clone();
    let refused = [
        (Config { tls_cert, ..none.clone() }, "tls_cert: needs tls_key"),
        (Config { tls_key, ..none.clone() }, "tls_key: needs tls_cert"),
        (Config { tls_client_ca, ..none }, "tls_client_ca: needs tls_cert and tls_key"),
        (
            Config { tls_allowed_clients, ..guarded.open() },
            "tls_allowed_clients: needs tls_client_ca",
        ),
    ];
    for (config, why) in refused {
        assert_refused(without(config), why);
    }
}

#[test]
fn an_address_that_others_reach_needs_tls_or_to_be_asked_for() {
    let guarded = Guarded::new();
    let socket = format!("unix:{}/bills.sock", guarded.dir.path().display());
    let on = |listen: &[&str], config: Config| Config {
        listen: listen.iter().map(|&address| address.to_owned()).collect(),
        ..config
    };
    let plain = || Config { db: guarded.open().db, ..Config::default() };
    for public in ["0.0.0.0:0", "[::]:0"] {
        let why =
            format!("listen: {public} is for more than this machine, and everyone there could");
        assert_refused(on(&["127.0.0.1:0", public], plain()), &why);
    }
    let served = [
        on(&["127.0.0.1:0", "127.0.0.2:0", &socket], plain()),
        on(&["0.0.0.0:0", &socket], guarded.open()),
        on(&["0.0.0.0:0"], Config { insecure_public: true, ..plain() }),
    ];
    for config in served {
        Server::start(config).unwrap().shutdown().unwrap();
    }
}
