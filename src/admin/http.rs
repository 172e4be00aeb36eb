//! The HTTP of the operator: one request a connection, GET and HEAD, answered from memory.
//!
//! (The crate `tiny_http` has no limit on the time of a request, and a thread for each that is slow; parsing is what
//! is left to a crate.)

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a client may take to send its request, and again to take the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at whether the server is to end.
const TICK: Duration = Duration::from_millis(100);
/// The largest request in bytes, which has no body.
const MAX_REQUEST_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;

/// What is asked for.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Request {
    pub path: String,
    /// Behind the question mark.
    pub query: String,
    is_head: bool,
    host: Option<String>,
    pub authorization: Option<String>,
}

/// An answer.
pub struct Response {
    code: u16,
    content_type: &'static str,
    body: String,
    /// What the scripts and styles of the body are told apart by from what is not of it, if it has any.
    nonce: Option<String>,
}

impl Response {
    pub fn new(code: u16, content_type: &'static str, body: impl Into<String>) -> Response {
        Response { code, content_type, body: body.into(), nonce: None }
    }

    /// A page; each answer has a nonce of its own where `{nonce}` is.
    pub fn html(body: &str) -> Response {
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let body = body.replace("{nonce}", &nonce);
        let response = Response::new(200, "text/html; charset=utf-8", body);
        Response { nonce: Some(nonce), ..response }
    }

    pub fn text(code: u16, body: impl Into<String>) -> Response {
        Response::new(code, "text/plain; charset=utf-8", body)
    }

    pub fn json(body: String) -> Response {
        Response::new(200, "application/json", body)
    }

    fn reason(&self) -> &'static str {
        match self.code {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            // OK because no other is made.
            _ => "",
        }
    }

    /// Nothing is kept by anyone, nor read by another site, nor run but what the page itself has.
    fn head(&self) -> String {
        format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nAllow: GET, HEAD\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nContent-Security-Policy: default-src 'none'; {}\
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\r\n",
            self.code,
            self.reason(),
            self.content_type,
            self.body.len(),
            self.policy()
        )
    }

    fn policy(&self) -> String {
        let Some(nonce) = &self.nonce else { return String::new() };
        format!(
            "script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
        )
    }
}

/// Answers the one request of `stream`, or gives it up: after [`TIMEOUT`], or when `is_closed`.
pub fn serve(
    stream: TcpStream,
    is_closed: impl Fn() -> bool,
    answer: impl FnOnce(&Request) -> Response,
) -> io::Result<()> {
    let mut stream = Patient { stream, until: Instant::now() + TIMEOUT, is_closed };
    let request = stream.request();
    let response = match &request {
        Ok(request) => answer(request),
        Err(Unfit::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Response::text(408, "the request took too long\n")
        }
        Err(Unfit::Io(error)) => return Err(error.kind().into()),
        Err(Unfit::Refused(code, why)) => Response::text(*code, format!("{why}\n")),
    };
    stream.until = Instant::now() + TIMEOUT;
    stream.write(response.head().as_bytes())?;
    if !request.is_ok_and(|request| request.is_head) {
        stream.write(response.body.as_bytes())?;
    }
    // What the client still sends would make a reset of the end, and the answer may be lost by that.
    stream.stream.shutdown(std::net::Shutdown::Write)?;
    stream.until = stream.until.min(Instant::now() + TICK);
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

/// Whether a browser that was told a name of its own for this address could have asked: the page of another site
/// must not read what loopback has.
pub fn is_foreign(request: &Request) -> bool {
    let Some(host) = &request.host else { return true };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_loopback = name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    !is_loopback && !name.eq_ignore_ascii_case("localhost")
}

/// Why there is no request.
enum Unfit {
    Io(io::Error),
    Refused(u16, &'static str),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Unfit {
        Unfit::Io(error)
    }
}

/// A connection that is waited for until a moment, however little comes at a time.
struct Patient<F> {
    stream: TcpStream,
    until: Instant,
    is_closed: F,
}

impl<F: Fn() -> bool> Patient<F> {
    fn request(&mut self) -> Result<Request, Unfit> {
        let (mut bytes, mut piece) = (Vec::new(), [0; 2048]);
        loop {
            let n = self.read(&mut piece)?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            bytes.extend_from_slice(&piece[..n]);
            if let Some(request) = parse(&bytes)? {
                return Ok(request);
            }
            if bytes.len() >= MAX_REQUEST_BYTES {
                return Err(Unfit::Refused(431, "the request is too large"));
            }
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.wait(|stream| stream.read(piece))
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.wait(|stream| stream.write(bytes))?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    fn wait<T>(&mut self, mut work: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        self.stream.set_read_timeout(Some(TICK))?;
        self.stream.set_write_timeout(Some(TICK))?;
        loop {
            // Before each piece: one that comes at once may be the first of any number.
            if Instant::now() >= self.until || (self.is_closed)() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match work(&mut self.stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

/// The request in `bytes`; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Request>, Unfit> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|error| match error {
        httparse::Error::TooManyHeaders => Unfit::Refused(431, "the request has too many headers"),
        _ => Unfit::Refused(400, "this is HTTP/1.1, and that was no request of it"),
    })?;
    if parsed.is_partial() {
        return Ok(None);
    }
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Unfit::Refused(405, "only GET and HEAD: nothing is changed here")),
    };
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        let header =
            request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::to_owned)
    };
    let (host, authorization) = (header("host"), header("authorization"));
    let (path, query) = (path.to_owned(), query.to_owned());
    Ok(Some(Request { path, query, is_head, host, authorization }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_loopback_are_its_own() {
        let foreign = |host: Option<&str>| {
            let host = host.map(str::to_owned);
            is_foreign(&Request { host, ..Request::default() })
        };
        for host in ["localhost", "LOCALHOST:9", "127.0.0.1:80", "127.9.9.9", "[::1]:80", "[::1]"] {
            assert!(!foreign(Some(host)), "{host}");
        }
        for host in ["", "evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", "[::2]", "::1"] {
            assert!(foreign(Some(host)), "{host}");
        }
        assert!(foreign(None));
    }
}
