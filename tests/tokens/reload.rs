//! The file changes while calls are made.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::SummaryRequest;
use billstream::{Config, Error, Server};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{RpcStatusCode, WriteFlags};

use crate::common::*;
use crate::{line, log_lines, set_mode, some_token, with_token, TokenFile};

fn is_let_in(client: &Stub, token: &str) -> bool {
    match client.get_summary(&SummaryRequest::new(), with_token(token)) {
        Ok(_) => true,
        refused => {
            assert_status(refused, RpcStatusCode::UNAUTHENTICATED, "unknown token");
            false
        }
    }
}

const CALLERS: usize = 10;
/// Of each caller; together they make 100 calls a second.
const BETWEEN_CALLS: Duration = Duration::from_millis(100);
const CALLS_A_CONNECTION: usize = 5;

/// What the callers share.
struct Load {
    addr: String,
    /// The token that is in the hands of the callers.
    token: Mutex<String>,
    /// The calls of each caller.
    calls: [AtomicUsize; CALLERS],
    is_over: AtomicBool,
}

impl Load {
    /// Calls at a steady rate, on a new connection every few calls; no call may fail.
    fn caller(&self, number: usize) {
        let mut next = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let client = Stub::new(&self.addr);
            for _ in 0..CALLS_A_CONNECTION {
                let token = self.token.lock().unwrap().clone();
                client
                    .get_summary(&SummaryRequest::new(), with_token(&token))
                    .expect("no call fails");
                self.calls[number].fetch_add(1, Ordering::Relaxed);
                next += BETWEEN_CALLS;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
    }

    fn count(&self) -> [usize; CALLERS] {
        std::array::from_fn(|caller| self.calls[caller].load(Ordering::Relaxed))
    }

    /// Waits until every caller has begun and ended a call.
    fn wait_for_new_calls(&self) {
        let before = self.count();
        eventually("every caller calls", || {
            self.count().iter().zip(before).all(|(now, before)| *now >= before + 2)
        });
    }
}

/// As docs/tokens.md says it: the new token beside the old one, the callers, the old one away.
#[test]
fn tokens_are_swapped_under_100_calls_a_second_and_no_call_fails() {
    let tokens: Vec<String> = (60..63).map(some_token).collect();
    let file = TokenFile::new(&line("a", "read,write", &tokens[0]));
    let mut server = TestServer::start(file.config());
    let client = server.client();
    let load = Load {
        addr: server.addr(),
        token: Mutex::new(tokens[0].clone()),
        calls: Default::default(),
        is_over: AtomicBool::new(false),
    };
    let (mut events, mut acks) = client.reconcile(with_token(&tokens[0])).unwrap();
    let begin = Instant::now();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                scope.spawn({
                    let load = &load;
                    move || load.caller(number)
                })
            })
            .collect();
        // Also where the test fails, so that the callers end.
        let _end = Finally(&load.is_over);
        for pair in tokens.windows(2) {
            let [old, new] = pair else { unreachable!() };
            let both = line("a", "read,write", old) + &line("a", "read,write", new);
            file.write(&both);
            eventually("the new token is let in", || is_let_in(&client, new));
            *load.token.lock().unwrap() = new.clone();
            load.wait_for_new_calls();
            file.write(&line("a", "read,write", new));
            eventually("the old token is refused", || !is_let_in(&client, old));
            load.wait_for_new_calls();
        }
        load.is_over.store(true, Ordering::Relaxed);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
    let calls: usize = load.count().iter().sum();
    let rate = calls as f64 / begin.elapsed().as_secs_f64();
    println!("{calls} calls, {rate:.0} a second");
    assert!(calls > 200 && rate > 80.0, "{calls} calls, {rate:.0} a second");
    // A call that was let in goes on, although its token is gone.
    let ack = block_on(async {
        events.send((event("e1", "i1", 1), WriteFlags::default())).await.unwrap();
        half_close(&mut events).await;
        acks.next().await.unwrap()
    });
    assert_eq!(ack.unwrap().event_id, "e1");
    server.stop();
}

/// Ends the load when it is dropped.
struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_bad_file_keeps_the_tokens_of_before_and_is_told_of_once() {
    log_lines::keep();
    let [old, new] = [70, 71].map(some_token);
    let file = TokenFile::new(&line("a", "read", &old));
    let mut server = TestServer::start(file.config());
    let client = server.client();
    let path = file.path().display().to_string();
    let said = |what: &str| log_lines::with(&format!("tokens: {path}: {what}"));

    file.write(&format!("# a comment\nb read {new}\n"));
    let kept =
        "line 2: expected sha256:HEX or cert after the rights; those of before stay in force";
    eventually("a bad file is told of", || !said(kept).is_empty());
    assert!(is_let_in(&client, &old));
    std::fs::remove_file(file.path()).unwrap();
    eventually("a missing file is told of", || !said("No such file").is_empty());
    assert!(is_let_in(&client, &old));
    assert_eq!(said(kept).len(), 1, "once, however often it is looked at");

    file.write(&line("a", "read", &new));
    eventually("a good file is taken", || is_let_in(&client, &new));
    assert!(!is_let_in(&client, &old));
    // Nobody is let in by an empty one, which is how all tokens are taken away.
    file.write("");
    eventually("all tokens are gone", || !is_let_in(&client, &new));
    assert_eq!(log_lines::with(&format!("tokens: {path} has no entry")).len(), 1);
    server.stop();
    assert_eq!(log_lines::with(&new), [""; 0], "a token in the log");
}

#[test]
fn a_file_that_others_may_read_is_told_of() {
    log_lines::keep();
    let file = TokenFile::new("");
    let token = some_token(80);
    file.write_with_mode(&line("a", "read", &token), 0o640);
    let mut server = TestServer::start(file.config());
    let told = |mode| {
        let path = file.path().display().to_string();
        log_lines::with(&format!("{path} is not its owner's alone (mode {mode})")).len()
    };
    assert_eq!(told("640"), 1);
    // A change of the mode is a change.
    set_mode(&file.path(), 0o606);
    eventually("the new mode is told of", || told("606") == 1);
    assert!(is_let_in(&server.client(), &token));
    server.stop();
    file.write(&line("a", "read", &token));
    let dir = tempfile::tempdir().unwrap();
    let config = Config { db: dir.path().join("bills.db"), ..file.config() };
    Server::builder(config).without_listeners().start().unwrap().shutdown().unwrap();
    assert_eq!((told("640"), told("606"), told("600")), (1, 1, 0));
}

#[test]
fn a_server_does_not_start_with_a_bad_file_and_leaves_nothing_behind() {
    let file = TokenFile::new("a read,wirte cert\n");
    let dir = tempfile::tempdir().unwrap();
    let config = Config { db: dir.path().join("bills.db"), ..file.config() };
    let start = |config: &Config| Server::builder(config.clone()).without_listeners().start().err();
    let error = start(&config).unwrap();
    let path = file.path().display().to_string();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(
        error.to_string().starts_with(&format!("tokens: {path}: line 1: expected rights")),
        "{error}"
    );
    std::fs::remove_file(file.path()).unwrap();
    let error = start(&config).unwrap();
    assert!(error.to_string().starts_with(&format!("tokens: {path}: No such file")), "{error}");
    assert!(!config.db.exists());
}
