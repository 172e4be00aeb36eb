//! A backup is all there is: it has a right of its own.

use billstream::client::{Client, Code, ConnectOptions};

use crate::common::*;
use crate::{line, some_token, TokenFile};

#[test]
fn a_client_backs_up_with_a_token_that_may() {
    let [admin, writer] = [1, 2].map(some_token);
    let text = line("boss", "admin", &admin) + &line("writer", "read,write", &writer);
    let file = TokenFile::new(&text);
    let server = TestServer::start(file.config());
    let backup = |token: &str| {
        let options = ConnectOptions { token: Some(token.to_owned()), ..Default::default() };
        let client = Client::connect_with(&server.addr(), &options).unwrap();
        let dest = server.dir.path().join("copy.db");
        let made = client.backup_to(&dest, |_, _| {});
        made.map(|_| std::fs::remove_file(dest).unwrap())
    };
    backup(&admin).unwrap();
    let refused = backup(&writer).unwrap_err().downcast::<billstream::client::Error>().unwrap();
    assert_eq!(refused.code, Code::PermissionDenied);
}

/// Opening a pipe waits for who writes it.
#[test]
fn a_pipe_in_the_place_of_the_file_holds_up_neither_a_start_nor_a_stop() {
    let file = TokenFile::new(&line("boss", "admin", &some_token(3)));
    let mut server = TestServer::start(file.config());
    std::fs::remove_file(file.path()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(file.path()).status().unwrap();
    assert!(made.success());
    let refused = billstream::Server::start(file.config()).err().unwrap();
    assert!(refused.to_string().contains("no regular file"), "{refused}");
    // The running one looks at it each second.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let start = std::time::Instant::now();
    server.stop();
    assert!(start.elapsed() < DEADLINE);
}
