//! What holds of a fork while a server runs: docs/embedding.md.

#[path = "common/mod.rs"]
mod common;

use std::process::{Command, Stdio};

use billstream::Server;
use common::*;
use fork::Fork;

/// A child that neither execs nor ends, until it is killed. It runs what a child may: one system call.
struct Child(i32);

impl Child {
    fn fork() -> Child {
        match fork::fork().unwrap() {
            Fork::Parent(pid) => Child(pid),
            Fork::Child => {
                std::thread::sleep(DEADLINE);
                std::process::abort()
            }
        }
    }

    /// As `_exit` does, this runs nothing of the child's any more.
    fn end(self) {
        let pid = self.0.to_string();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        fork::waitpid(self.0).unwrap();
    }
}

fn assert_sound(server: &TestServer, invoices: i64) {
    let report = billstream::server::check(&server.config).unwrap();
    assert_eq!((report.faults, report.invoice_count), (Vec::new(), invoices));
}

#[test]
fn a_child_that_ends_harms_neither_the_server_nor_the_database() {
    let _alone = alone();
    let mut server = TestServer::start(Default::default());
    let client = server.client();
    upload(&client, [invoice("before", 1)]).unwrap();
    let child = Child::fork();
    upload(&client, [invoice("during", 1)]).unwrap();
    child.end();
    upload(&client, [invoice("after", 1)]).unwrap();
    // The end of the child has freed no lock of the server's.
    assert!(Server::start(server.config.clone()).is_err());
    assert_eq!(summary(&client).invoice_count, 3);
    server.stop();
    assert_sound(&server, 3);
}

#[test]
fn a_child_keeps_the_database_locked_until_it_ends() {
    let _alone = alone();
    let mut server = TestServer::start(Default::default());
    let child = Child::fork();
    server.stop();
    let refused = Server::start(server.config.clone()).err().unwrap().to_string();
    assert!(refused.contains("another server is serving it"), "{refused}");
    child.end();
    Server::start(server.config.clone()).unwrap().shutdown().unwrap();
    assert_sound(&server, 0);
}

#[test]
fn a_child_that_execs_holds_nothing() {
    let _alone = alone();
    let mut server = TestServer::start(Default::default());
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    server.stop();
    Server::start(server.config.clone()).unwrap().shutdown().unwrap();
    assert_eq!(cat.try_wait().unwrap(), None, "it lives");
    drop(cat.stdin.take());
    assert!(cat.wait().unwrap().success());
}
