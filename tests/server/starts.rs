//! Several listeners, none, and starts that fail.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use billstream::client::Stub;
use billstream::server::Address;
use billstream::{Config, Server};
use futures::executor::block_on;

use crate::common::*;
use crate::{config, files};

fn on(dir: &Path, listen: &[String]) -> Config {
    Config { listen: listen.to_vec(), ..config(dir) }
}

#[test]
fn a_server_listens_on_several_ports_and_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bills.sock");
    let unix = format!("unix:{}", socket.display());
    let any = "127.0.0.1:0".to_owned();
    let server = Server::start(on(dir.path(), &[any.clone(), unix.clone(), any])).unwrap();
    let addresses: Vec<_> = server.addresses().iter().map(Address::to_string).collect();
    assert_eq!((addresses.len(), &addresses[1]), (3, &unix));
    assert_eq!(addresses[0], server.addr().to_string());
    assert_ne!(addresses[0], addresses[2]);
    for (i, address) in addresses.iter().enumerate() {
        let client = Stub::new(address);
        assert_eq!(upload(&client, [invoice(&format!("i{i}"), 1)]).unwrap().created_count, 1);
        assert_eq!(summary(&client).invoice_count, i as i64 + 1);
    }
    let refused = Server::start(config(dir.path())).err().unwrap().to_string();
    assert!(refused.ends_with(&format!("is serving it on {}", addresses.join(", "))), "{refused}");
    server.shutdown().unwrap();
    assert!(!socket.exists(), "a stop removes its socket");
}

#[test]
fn without_listeners_no_port_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::builder(config(dir.path())).without_listeners().start().unwrap();
    assert_eq!(server.addresses(), []);
    server.shutdown().unwrap();
    assert_eq!(files(dir.path()).len(), 2, "the database and its lock");
}

#[test]
fn the_socket_of_a_dead_server_is_replaced_and_that_of_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bills.sock");
    let config = || on(dir.path(), &[format!("unix:{}", socket.display())]);
    let refused = |why: &str| {
        let error = Server::start(config()).err().unwrap().to_string();
        let expected = format!("cannot listen on unix:{}: {why}", socket.display());
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(files(dir.path()), ["bills.sock"]);
    };
    let live = UnixListener::bind(&socket).unwrap();
    refused("another server is listening on it");
    drop(live);
    let server = Server::start(config()).unwrap();
    let client = Stub::new(&server.addresses()[0].to_string());
    assert_eq!(summary(&client).invoice_count, 0);
    server.shutdown().unwrap();
    for file in files(dir.path()) {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    std::fs::write(&socket, "").unwrap();
    refused("there is a file already");
}

/// Inside an executor, where grpcio's own wait for the end of a server panics.
#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let unix = |path: &Path| format!("unix:{}", path.display());
    let socket = unix(&dir.path().join("bills.sock"));
    let absent = unix(&dir.path().join("absent/bills.sock"));
    let long = unix(&dir.path().join("a".repeat(200)));
    let any = || "127.0.0.1:0".to_owned();
    for (listen, why) in [
        (vec![taken.clone()], "Address already in use"),
        (vec![any(), socket.clone(), taken], "Address already in use"),
        (vec![socket.clone(), socket], "another server is listening on it"),
        (vec![any(), absent], "No such file or directory"),
        (vec![long], "path must be shorter"),
        (vec![any(), "nowhere".to_owned()], "expected HOST:PORT or unix:PATH"),
    ] {
        let config = on(dir.path(), &listen);
        let error = block_on(async { Server::start(config) }).err().unwrap().to_string();
        assert!(error.contains(why), "{listen:?}: {error}");
        assert_eq!(files(dir.path()), [""; 0], "{listen:?}");
    }
    // Not even a lock on the database.
    Server::start(config(dir.path())).unwrap();
}

#[test]
fn a_socket_whose_name_grpc_would_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a%20b", "a?b", "a#b", "a,b", "a\0b"] {
        let listen = vec![format!("unix:{}/{name}", dir.path().display())];
        let refused = Server::start(Config { listen, ..config(dir.path()) }).err().unwrap();
        assert!(refused.to_string().contains("control character"), "{name:?}: {refused}");
    }
    assert_eq!(files(dir.path()), [""; 0]);
}
