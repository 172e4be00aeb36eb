//! Requests: which are answered, how the others are refused, and for how long one is waited for.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use billstream::{Config, Error, Server};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};
use serde_json::Value;

use crate::common::{event, eventually, invoice, upload, TestServer};
use crate::support::{admin, answer, get, get_from, operated, send};

#[test]
fn what_is_no_request_of_it_is_refused() {
    let server = operated(Config::default());
    let host = format!("Host: {}\r\n\r\n", admin(&server));
    let long = "x".repeat(9000);
    let many = "X-Many: 1\r\n".repeat(65);
    for (request, code) in [
        (format!("GET /livez HTTP/1.1\r\n{host}"), 200),
        (format!("GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n{host}"), 200),
        (format!("POST /livez HTTP/1.1\r\n{host}"), 405),
        (format!("DELETE /metrics HTTP/1.1\r\n{host}"), 405),
        ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), 403),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example:80\r\n\r\n".to_owned(), 403),
        (format!("GET /../etc/passwd HTTP/1.1\r\n{host}"), 404),
        (format!("GET /{long} HTTP/1.1\r\n{host}"), 431),
        (format!("GET /livez HTTP/1.1\r\n{many}{host}"), 431),
        (format!("GET  HTTP/1.1\r\n{host}"), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
    ] {
        assert_eq!(send(admin(&server), request.as_bytes()).code, code, "{request:.60}");
    }
}

#[test]
fn an_answer_is_kept_by_nobody_and_head_has_no_body() {
    let server = operated(Config::default());
    let answer = get(&server, "/readyz");
    assert_eq!((answer.code, &answer.body[..]), (200, "ok\n"));
    for header in ["Cache-Control: no-store", "Content-Security-Policy: default-src 'none'"] {
        assert!(answer.head.contains(header), "{}", answer.head);
    }
    let request = format!("HEAD /readyz HTTP/1.1\r\nHost: {}\r\n\r\n", admin(&server));
    let head = send(admin(&server), request.as_bytes());
    assert_eq!((head.code, &head.body[..]), (200, ""));
    assert!(head.head.contains("Content-Length: 3"), "{}", head.head);
}

/// More slow ones than threads: each is given up in its time, and the others are answered.
#[test]
fn slow_clients_keep_nobody_out_for_long() {
    let server = operated(Config::default());
    let start = Instant::now();
    let slow = |_| {
        let mut stream = TcpStream::connect(admin(&server)).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
        stream
    };
    let mut slow: Vec<TcpStream> = (0..8).map(slow).collect();
    assert_eq!(get(&server, "/livez").code, 200);
    println!("answered after {:?} behind {} slow ones", start.elapsed(), slow.len());
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(answer(&mut slow[0]).code, 408);
}

#[test]
fn a_stop_waits_for_no_request_and_gives_the_port_free() {
    let mut server = operated(Config::default());
    let address = admin(&server);
    let _slow: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    std::net::TcpListener::bind(address).unwrap();
}

/// As many as there are threads, none of which is refused before it has said all.
#[test]
fn who_never_ends_a_request_holds_up_neither_others_nor_a_stop() {
    let mut server = operated(Config::default());
    let address = admin(&server);
    let endless = |_| {
        thread::spawn(move || {
            // Until the server has enough; then it may come again.
            for _ in 0..50 {
                let Ok(mut stream) = TcpStream::connect(address) else { return };
                while stream.write_all(&[b'x'; 4096]).is_ok() {}
            }
        })
    };
    let endless: Vec<_> = (0..4).map(endless).collect();
    assert_eq!(get(&server, "/livez").code, 200);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    endless.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn it_is_on_loopback_or_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let start = |admin_listen: &str| {
        let config = Config {
            db: dir.path().join("bills.db"),
            admin_listen: admin_listen.to_owned(),
            ..Config::default()
        };
        Server::builder(config).without_listeners().start()
    };
    for address in ["0.0.0.0:0", "[::]:0", "nonsense"] {
        let error = start(address).err().unwrap();
        assert!(
            matches!(&error, Error::Unusable(why) if why.contains("admin_listen")),
            "{error:?}"
        );
    }
    let first = start("127.0.0.1:0").unwrap();
    let taken = first.admin_addr().unwrap().to_string();
    let other =
        Config { db: dir.path().join("other.db"), admin_listen: taken, ..Config::default() };
    let error = Server::builder(other).without_listeners().start().err().unwrap();
    assert!(matches!(&error, Error::Unavailable(why) if why.contains("admin_listen")), "{error:?}");
    assert!(!dir.path().join("other.db").exists());
    first.shutdown().unwrap();
    assert!(start("").unwrap().admin_addr().is_none());
}

#[test]
fn it_is_ready_while_it_can_write_and_does_not_stop() {
    let mut server = operated(Config::default());
    let (db, moved) = (&server.config.db, server.dir.path().join("moved.db"));
    upload(&server.client(), [invoice("", 1)]).unwrap();
    fs::rename(db, &moved).unwrap();
    eventually("it tells of the file", || get(&server, "/readyz").code == 503);
    eventually("its reasons are those of its health", || {
        get(&server, "/readyz").body == server.get().health().reasons.join("\n") + "\n"
    });
    assert_eq!(get(&server, "/livez").code, 200);
    fs::rename(&moved, db).unwrap();
    eventually("it is ready again", || get(&server, "/readyz").code == 200);

    // A call that goes on for a while after the stop began.
    let client = server.client();
    let (mut sink, mut acks) = client.reconcile(CallOption::default()).unwrap();
    block_on(sink.send((event("e1", "inv-1", 1), WriteFlags::default()))).unwrap();
    block_on(acks.next()).unwrap().unwrap();
    let (address, running) = (admin(&server), server.server.take().unwrap());
    let stopping = thread::spawn(move || running.shutdown().unwrap());
    eventually("it tells of the stop", || {
        let answer = get_from(address, "/readyz");
        answer.code == 503 && answer.body == "draining\n"
    });
    drop((sink, acks));
    stopping.join().unwrap();
}

fn json(server: &TestServer, path: &str) -> Value {
    let answer = get(server, path);
    assert_eq!(answer.code, 200, "{path}");
    serde_json::from_str(&answer.body).unwrap()
}

/// The connections to the port `of`, in all servers of this process that the core tells of.
fn connections(server: &TestServer, of: u16) -> Vec<Value> {
    let servers = json(server, "/channelz")["server"].as_array().unwrap().clone();
    let ids = servers.iter().map(|one| one["ref"]["serverId"].as_str().unwrap().to_owned());
    let sockets = ids.flat_map(|id| {
        // Another test may have ended its server.
        let answer = get(server, &format!("/channelz/server/{id}/sockets"));
        let sockets: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        sockets["socketRef"].as_array().cloned().unwrap_or_default()
    });
    let sockets = sockets.filter_map(|socket| {
        let id = socket["socketId"].as_str().unwrap();
        let answer = get(server, &format!("/channelz/socket/{id}"));
        serde_json::from_str::<Value>(&answer.body).ok()
    });
    // A number, or in a newer core a text.
    let is_of = |port: &Value| *port == of || port.as_str() == Some(&of.to_string());
    sockets.filter(|it| is_of(&it["socket"]["local"]["tcpip_address"]["port"])).collect()
}

#[test]
fn channelz_has_the_servers_and_their_connections() {
    let server = operated(Config::default());
    let client = server.client();
    upload(&client, [invoice("", 1)]).unwrap();
    let ours = connections(&server, server.get().addr().port());
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(ours[0]["socket"]["data"]["streamsStarted"], "1", "{ours:?}");
    for path in ["/channelz/server/0", "/channelz/server/-1", "/channelz/socket/x", "/channelzz"] {
        assert_eq!(get(&server, path).code, 404, "{path}");
    }
}

/// Without the listener the C core keeps nothing for it.
#[test]
fn without_it_there_is_no_channelz() {
    let (quiet, server) = (TestServer::start(Config::default()), operated(Config::default()));
    let client = quiet.client();
    upload(&client, [invoice("", 1)]).unwrap();
    assert!(connections(&server, quiet.get().addr().port()).is_empty());
}
