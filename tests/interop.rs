//! Python's own gRPC against a running server: all ten rpcs, their statuses and their details, with
//! stubs made from our proto files. Skipped, with the reason printed, where there is no Python.

use std::path::Path;

use billstream::{Config, Server};

#[path = "interop/python.rs"]
mod python;
#[path = "common/skip.rs"]
#[allow(dead_code)] // It has no need of a patched core.
mod skip;

/// Small limits, so that the client reaches them.
fn start(dir: &Path) -> Server {
    let config = Config {
        db: dir.join("bills.db"),
        listen: vec!["127.0.0.1:0".to_owned()],
        max_upload_rows: 5_000,
        max_reconciles: 2,
        // One client is to fill it.
        host_share_percent: 100,
        connection_share_percent: 100,
        max_page_size: 50,
        ..Config::default()
    };
    Server::start(config).unwrap()
}

#[test]
fn python_calls_every_rpc() {
    let python = match python::ready() {
        Ok(python) => python,
        Err(why) => return skip::skip(&why),
    };
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let output = python.script("client.py").arg(server.addr().to_string()).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "client.py ended with {}", output.status);
    server.shutdown().unwrap();
}
