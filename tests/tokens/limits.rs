//! Limits are kept by name, and then by connection; who has no name has no part of them.

use std::time::Instant;

use billstream::client::Stub;
use billstream::proto::report::{ReconcileAck, ReconcileEvent};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{
    CallOption, ClientDuplexReceiver, ClientDuplexSender, RpcStatus, RpcStatusCode, WriteFlags,
};

use crate::common::*;
use crate::{line, log_lines, some_token, with_headers, with_token, TokenFile};

type Open = (ClientDuplexSender<ReconcileEvent>, ClientDuplexReceiver<ReconcileAck>);

/// Opens a Reconcile; it holds a place once its first event is acknowledged.
fn open(client: &Stub, options: CallOption) -> Result<Open, RpcStatus> {
    let (mut events, mut acks) = client.reconcile(options).unwrap();
    block_on(async {
        // A refusal shows in the answer.
        let _ = events.send((event("e1", "i1", 1), WriteFlags::default())).await;
        acks.next().await.unwrap()
    })
    .map_err(|error| status::<()>(Err(error)))?;
    Ok((events, acks))
}

/// Opens streams until one is refused, and gives them with the reason.
fn take_all(client: &Stub, token: &str) -> (Vec<Open>, String) {
    let mut held = Vec::new();
    loop {
        match open(client, with_token(token)) {
            Ok(stream) => held.push(stream),
            Err(refused) => {
                assert_eq!(refused.code(), RpcStatusCode::RESOURCE_EXHAUSTED, "{refused:?}");
                return (held, refused.message().to_owned());
            }
        }
    }
}

#[test]
fn a_name_has_its_share_from_wherever_it_calls_and_others_have_theirs() {
    let [a, also_a, b] = [40, 41, 42].map(some_token);
    let text = line("a", "write", &a) + &line("a", "write", &also_a) + &line("b", "write", &b);
    let file = TokenFile::new(&text);
    let mut server = TestServer::start(Config {
        max_reconciles: 8,
        host_share_percent: 50,
        connection_share_percent: 100,
        ..file.config()
    });
    let (one, other) = (server.client(), server.client());
    let (held, why) = take_all(&one, &a);
    assert_eq!(held.len(), 4, "{why}");
    assert!(why.contains("has its share, host_share_percent of 50"), "{why}");
    // With another token of its name, on another connection.
    let (more, _) = take_all(&other, &also_a);
    assert_eq!(more.len(), 0);
    // All of them are of one host, and `b` calls on the connection of `a` too.
    let (of_b, _) = take_all(&one, &b);
    assert_eq!(of_b.len(), 2);
    assert_eq!(server.get().streams_open(), 6);
    drop((held, of_b));
    server.stop();
}

#[test]
fn a_connection_has_its_share_of_what_its_name_has() {
    let token = some_token(45);
    let file = TokenFile::new(&line("a", "write", &token));
    let mut server = TestServer::start(Config {
        max_reconciles: 16,
        host_share_percent: 100,
        connection_share_percent: 50,
        ..file.config()
    });
    let (held, why) = take_all(&server.client(), &token);
    assert_eq!(held.len(), 8, "{why}");
    assert!(why.contains("connection_share_percent of 50"), "{why}");
    assert!(open(&server.client(), with_token(&token)).is_ok());
    server.stop();
}

/// Calls without a token, many at a time and never ended by their clients.
#[test]
fn a_flood_without_tokens_takes_no_place_and_a_line_a_second() {
    log_lines::keep();
    let token = some_token(50);
    let file = TokenFile::new(&line("a", "write", &token));
    let mut server = TestServer::start(Config { max_reconciles: 1, ..file.config() });
    let begin = Instant::now();
    let (stranger, known) = (server.client(), server.client());
    let opened: Vec<Open> =
        (0..500).map(|_| stranger.reconcile(with_headers(&["flood"])).unwrap()).collect();
    let held = open(&known, with_token(&token)).expect("the one place is free");
    let mut flood = Vec::new();
    for (events, mut acks) in opened {
        let refused = block_on(acks.next()).unwrap();
        assert_status(refused, RpcStatusCode::UNAUTHENTICATED, "malformed authorization header");
        flood.push((events, acks));
    }
    let metrics = server.get().metrics();
    assert_eq!((metrics.calls_unauthenticated.get(), metrics.calls_denied.get()), (500, 0));
    assert_eq!((metrics.refused("max_reconciles"), server.get().streams_open()), (0, 1));
    // A line a second is a warning. (No other test makes such a call.)
    let lines = log_lines::with("to /billing.v1.ReportService/Reconcile was refused: malformed");
    let of_level = |level| lines.iter().filter(|line| line.starts_with(level)).count() as u64;
    assert_eq!(lines.len(), 500);
    assert!(
        (1..=begin.elapsed().as_secs() + 1).contains(&of_level("WARN a call of ipv4:127.0.0.1:"))
    );
    drop((flood, held));
    server.stop();
}
