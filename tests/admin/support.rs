//! A client of the operator's HTTP, and a reader of what Prometheus reads.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use billstream::Config;

use crate::common::{TestServer, DEADLINE};

/// A server with the operator's HTTP.
pub fn operated(config: Config) -> TestServer {
    TestServer::start(with_admin(config))
}

pub fn with_admin(config: Config) -> Config {
    Config { admin_listen: "127.0.0.1:0".to_owned(), ..config }
}

pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

/// The answer to these bytes, or to as many of them as are taken.
pub fn send(admin: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // A refusal shows in the answer.
    let _ = stream.write_all(bytes);
    answer(&mut stream)
}

pub fn answer(stream: &mut TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_owned(), body: body.to_owned() }
}

pub fn get_from(admin: SocketAddr, path: &str) -> Answer {
    send(admin, format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n").as_bytes())
}

pub fn admin(server: &TestServer) -> SocketAddr {
    server.get().admin_addr().unwrap()
}

pub fn get(server: &TestServer, path: &str) -> Answer {
    get_from(admin(server), path)
}

/// The samples of `/metrics`, by name and labels as they are written.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// The labels of a sample.
pub fn labels(sample: &str) -> Vec<(String, String)> {
    let Some((_, labels)) = sample.split_once('{') else { return Vec::new() };
    let labels = labels.trim_end_matches("\"}").split("\",");
    let pair = |label: &str| {
        let (name, value) = label.split_once("=\"").unwrap();
        (name.to_owned(), value.to_owned())
    };
    labels.map(pair).collect()
}

/// A metric as its HELP and TYPE have it.
#[derive(Debug)]
pub struct Metric {
    pub name: String,
    pub help: String,
    pub kind: String,
    /// The names of its labels.
    pub labels: Vec<String>,
}

pub fn metrics(text: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# HELP ") {
            let (name, help) = line.split_once(' ').unwrap();
            let (name, help) = (name.to_owned(), help.to_owned());
            metrics.push(Metric { name, help, kind: String::new(), labels: Vec::new() });
            continue;
        }
        let metric = metrics.last_mut().unwrap();
        if let Some(line) = line.strip_prefix("# TYPE ") {
            metric.kind = line.strip_prefix(&format!("{} ", metric.name)).unwrap().to_owned();
            continue;
        }
        assert!(line.starts_with(&metric.name), "{line} is below {}", metric.name);
        for (name, _) in labels(line.rsplit_once(' ').unwrap().0) {
            if name != "le" && !metric.labels.contains(&name) {
                metric.labels.push(name);
            }
        }
    }
    metrics
}
