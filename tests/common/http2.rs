//! A client of HTTP/2 that is written out frame by frame: it sends what no library would, and sees what
//! none shows.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::DEADLINE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// The window of HTTP/2 for a peer that says nothing, and for every connection at its start.
pub const DEFAULT_WINDOW: u32 = 65_535;

/// What a client sends first of all, before its SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend(&(self.payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
    }

    /// The error code that RST_STREAM begins with, and GOAWAY has after a stream.
    pub fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The grpc-status of HEADERS, where it is written out: in the first trailers of a connection.
    pub fn grpc_status(&self) -> Option<u32> {
        let name = b"grpc-status";
        let at = self.payload.windows(name.len()).position(|bytes| bytes == name)? + name.len();
        let length = usize::from(self.payload[at]);
        std::str::from_utf8(&self.payload[at + 1..][..length]).ok()?.parse().ok()
    }
}

/// The headers of a call.
pub fn request_headers(path: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// A block of HPACK: literals with new names, without Huffman codes, and remembered by nobody.
pub fn literals<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        append_literal(&mut block, 0, name, value);
    }
    block
}

/// The same for a table that the peer keeps, and the few bytes that say all of it once more.
pub fn indexed<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Vec<u8>, Vec<u8>) {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for (place, (name, value)) in headers.into_iter().enumerate() {
        append_literal(&mut first, 0x40, name, value);
        // The static table has 61 entries, and each new one goes before those there.
        again.push(0x80 | (62 + place as u8));
    }
    (first, again)
}

fn append_literal(block: &mut Vec<u8>, kind: u8, name: &str, value: &str) {
    block.push(kind);
    for text in [name, value] {
        append_length(block, text.len());
        block.extend(text.as_bytes());
    }
}

/// An integer of HPACK with a prefix of 7 bits.
fn append_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// A connection.
pub struct Http2 {
    pub stream: TcpStream,
}

impl Http2 {
    /// Connects with the windows of HTTP/2.
    pub fn connect(addr: &str) -> Http2 {
        Http2::connect_from(Ipv4Addr::LOCALHOST, addr).unwrap()
    }

    /// Connects from an address of this host, as another peer.
    pub fn connect_from(local: Ipv4Addr, addr: &str) -> io::Result<Http2> {
        let mut http2 = Http2 { stream: tcp_from(local, addr)? };
        http2.stream.write_all(PREFACE)?;
        http2.send(&Frame::new(SETTINGS, 0, 0, []))?;
        Ok(http2)
    }

    /// Connects with windows of `window` bytes.
    pub fn connect_with_window(addr: &str, window: u32) -> Http2 {
        let mut http2 = Http2 { stream: tcp_from(Ipv4Addr::LOCALHOST, addr).unwrap() };
        http2.stream.write_all(PREFACE).unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE is 4.
        let mut settings = vec![0, 4];
        settings.extend(window.to_be_bytes());
        http2.send(&Frame::new(SETTINGS, 0, 0, settings)).unwrap();
        if window > DEFAULT_WINDOW {
            http2.update_window(0, window - DEFAULT_WINDOW);
        }
        http2
    }

    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(9 + frame.payload.len());
        frame.append_to(&mut bytes);
        self.stream.write_all(&bytes)
    }

    pub fn update_window(&mut self, stream: u32, bytes: u32) {
        self.send(&Frame::new(WINDOW_UPDATE, 0, stream, bytes.to_be_bytes())).unwrap();
    }

    /// Opens a call that goes on.
    pub fn open(&mut self, stream: u32, path: &str) -> io::Result<()> {
        self.send(&Frame::new(HEADERS, END_HEADERS, stream, literals(request_headers(path))))
    }

    /// Sends a request with an empty message.
    pub fn call(&mut self, stream: u32, path: &str) {
        self.open(stream, path).unwrap();
        self.send(&Frame::new(DATA, END_STREAM, stream, [0; 5])).unwrap();
    }

    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Answers what HTTP/2 wants answered.
    pub fn acknowledge(&mut self, frame: &Frame) -> io::Result<()> {
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self.send(&Frame::new(SETTINGS, ACK, 0, [])),
            PING if frame.flags & ACK == 0 => {
                self.send(&Frame::new(PING, ACK, 0, frame.payload.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The first frame that `wanted` takes; the others are dropped. An end of the connection is an error.
    pub fn receive_until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.receive()?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }
}

/// A connection of TCP whose reads fail rather than hang.
pub fn tcp_from(local: Ipv4Addr, addr: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(local), 0).into())?;
    let addr: SocketAddr = addr.parse().unwrap();
    socket.connect(&addr.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}
