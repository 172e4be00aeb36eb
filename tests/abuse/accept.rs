//! No error of `accept4` that is not the listening socket's own may end the listener.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use billstream::client::Stub;

use crate::common::process::Process;
use crate::common::skip::{core_is_patched, skip};
use crate::common::*;

/// What accept(2) may say of a connection, of the network or of the memory, and what it does not document.
const ERRORS: [&str; 16] = [
    "EMFILE",
    "ENFILE",
    "ENOBUFS",
    "ENOMEM",
    "EPERM",
    "EPROTO",
    "ENETDOWN",
    "ECONNABORTED",
    "EINTR",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ETIMEDOUT",
    "ENOSR",
];

/// The library that injects them, or why there is none.
fn injector(dir: &Path) -> Result<PathBuf, String> {
    let library = dir.join("accept_errors.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/abuse/accept_errors.c");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(library).ok_or(format!("cc: {words}"))
}

#[test]
fn no_error_of_accept_ends_the_listener() {
    if !cfg!(target_os = "linux") {
        return skip("libraries are preloaded on Linux");
    }
    if !core_is_patched() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let library = match injector(dir.path()) {
        Ok(library) => library,
        Err(why) => return skip(&why),
    };
    let errors = ERRORS.join(" ");
    let env = [("LD_PRELOAD", library.to_str().unwrap()), ("ACCEPT_ERRORS", &errors)];
    let server = Process::with_env(&database(1000), &[], &env);
    for error in ERRORS {
        // Each new connection makes gRPC accept, even while it waits to try again.
        eventually(error, || {
            drop(TcpStream::connect(&server.addr).unwrap());
            server.log().contains(&format!("injected {error}\n"))
        });
    }
    assert_eq!(summary(&Stub::new(&server.addr)).invoice_count, 1000);
    assert!(server.log().contains("trying again"), "it is said: {}", server.log());
}
