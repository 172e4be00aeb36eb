//! The neutral client: HTTP/2 from the `h2` crate, gRPC's framing by hand, and messages counted
//! without decoding them, so that it costs every server's measurement the same, and little.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use prost::Message;
use tokio::net::TcpStream;

/// The windows of hyper's client, and so of most Rust clients.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;

pub type Result<T> = std::result::Result<T, Failure>;

/// A call that did not end well.
#[derive(Debug)]
pub struct Failure {
    /// The gRPC status, or `None` where the transport failed.
    pub code: Option<i32>,
    pub message: String,
}

impl Failure {
    fn transport(error: impl std::fmt::Display) -> Failure {
        Failure { code: None, message: error.to_string() }
    }
}

/// How h2 guards against a peer that sends many DATA frames under 256 bytes.
#[derive(Clone, Copy, PartialEq)]
pub enum Guard {
    /// Never ends the connection: such a peer is measured and not cut off.
    Raised,
    /// All of h2's defaults: the guard, and the windows that it follows from.
    Default,
}

/// A connection. Clones share it.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Connection {
    pub async fn open(address: SocketAddr, guard: Guard) -> Result<Connection> {
        let socket = TcpStream::connect(address).await.map_err(Failure::transport)?;
        socket.set_nodelay(true).map_err(Failure::transport)?;
        let mut builder = h2::client::Builder::new();
        if guard == Guard::Raised {
            builder
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .data_frame_budget(usize::MAX / 2);
        }
        let (sender, connection) = builder.handshake(socket).await.map_err(Failure::transport)?;
        // Its error is also the error of every call on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, address })
    }

    /// Starts a call of a method of the report service.
    pub async fn call(&self, method: &str) -> Result<Call> {
        let request = http::Request::post(format!(
            "http://{}/billing.v1.ReportService/{method}",
            self.address
        ))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(Failure::transport)?;
        let mut sender = self.sender.clone().ready().await.map_err(Failure::transport)?;
        let (response, requests) =
            sender.send_request(request, false).map_err(Failure::transport)?;
        let responses = Responses {
            head: Some(response),
            body: None,
            trailers: None,
            counter: Counter::new(method == "ExportInvoiceBatches"),
        };
        Ok(Call { requests: Requests(requests), responses })
    }

    /// Sends framed messages; gives the message of the answer, and what came over the wire.
    pub async fn unary(&self, method: &str, message: Bytes) -> Result<(Bytes, Tally)> {
        let mut call = self.call(method).await?;
        call.requests.send(message, true).await?;
        let mut body = BytesMut::new();
        while let Some(frame) = call.responses.frame().await? {
            body.extend_from_slice(&frame);
        }
        if body.len() < 5 {
            return Err(Failure::transport("no message"));
        }
        Ok((body.freeze().split_off(5), call.responses.tally()))
    }
}

/// The two halves of a call.
pub struct Call {
    pub requests: Requests,
    pub responses: Responses,
}

pub struct Requests(SendStream<Bytes>);

impl Requests {
    /// Sends bytes that are framed already, as the flow control of the server allows.
    pub async fn send(&mut self, mut bytes: Bytes, end: bool) -> Result<()> {
        while !bytes.is_empty() {
            self.0.reserve_capacity(bytes.len());
            let capacity = std::future::poll_fn(|cx| self.0.poll_capacity(cx)).await;
            let capacity = match capacity {
                Some(capacity) => capacity.map_err(Failure::transport)?,
                // The server has ended the call early: the answer says why.
                None => return Ok(()),
            };
            let part = bytes.split_to(capacity.min(bytes.len()));
            let last = end && bytes.is_empty();
            self.0.send_data(part, last).map_err(Failure::transport)?;
        }
        Ok(())
    }

    pub fn finish(&mut self) -> Result<()> {
        self.0.send_data(Bytes::new(), true).map_err(Failure::transport)
    }
}

pub struct Responses {
    head: Option<ResponseFuture>,
    body: Option<RecvStream>,
    trailers: Option<HeaderMap>,
    counter: Counter,
}

impl Responses {
    /// The payload of the next DATA frame; `None` after the last of a call that ended well.
    pub async fn frame(&mut self) -> Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            let (parts, body) = head.await.map_err(Failure::transport)?.into_parts();
            self.body = Some(body);
            // An answer of trailers only has its status here.
            self.trailers = parts.headers.contains_key("grpc-status").then_some(parts.headers);
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        if let Some(frame) = body.data().await {
            let frame = frame.map_err(Failure::transport)?;
            body.flow_control().release_capacity(frame.len()).map_err(Failure::transport)?;
            self.counter.take(&frame);
            return Ok(Some(frame));
        }
        let trailers = match self.trailers.take() {
            Some(headers) => headers,
            None => body.trailers().await.map_err(Failure::transport)?.unwrap_or_default(),
        };
        self.body = None;
        let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
        match text("grpc-status").and_then(|code| code.parse().ok()) {
            Some(0) => Ok(None),
            code => {
                let message = text("grpc-message").unwrap_or("no status").to_owned();
                Err(Failure { code, message })
            }
        }
    }

    /// What has arrived so far.
    pub fn tally(&self) -> Tally {
        self.counter.tally
    }
}

/// What came over the wire in DATA frames. h2 hands over each frame's payload as one item.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub messages: u64,
    /// Messages, or entries of the messages of ExportInvoiceBatches.
    pub rows: u64,
    pub bytes: u64,
    pub frames: u64,
    /// Frames under 256 bytes, which h2 counts against a peer.
    pub small_frames: u64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.messages += other.messages;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.frames += other.frames;
        self.small_frames += other.small_frames;
    }
}

/// Follows the framing through payloads that are cut anywhere.
struct Counter {
    tally: Tally,
    batches: bool,
    /// Bytes of the message that are still to come.
    message: usize,
    /// Bytes to pass over before anything is looked at again.
    skip: usize,
    /// The header that is being read: gRPC's five bytes, or an entry's tag and length.
    header: Vec<u8>,
}

impl Counter {
    fn new(batches: bool) -> Counter {
        Counter { tally: Tally::default(), batches, message: 0, skip: 0, header: Vec::new() }
    }

    fn take(&mut self, mut payload: &[u8]) {
        self.tally.frames += 1;
        self.tally.bytes += payload.len() as u64;
        self.tally.small_frames += u64::from(payload.len() < 256);
        while !payload.is_empty() {
            let passed = self.skip.min(payload.len());
            payload = &payload[passed..];
            self.skip -= passed;
            self.message -= passed.min(self.message);
            if self.skip > 0 || payload.is_empty() {
                return;
            }
            let byte = payload[0];
            payload = &payload[1..];
            self.header.push(byte);
            if self.message == 0 {
                self.begin_message();
            } else {
                self.message -= 1;
                self.begin_entry(byte);
            }
        }
    }

    fn begin_message(&mut self) {
        if let [_, length @ ..] = &self.header[..] {
            if let Ok(length) = <[u8; 4]>::try_from(length) {
                self.message = u32::from_be_bytes(length) as usize;
                self.skip = if self.batches { 0 } else { self.message };
                self.tally.messages += 1;
                self.tally.rows += u64::from(!self.batches);
                self.header.clear();
            }
        }
    }

    /// The entries of an InvoiceBatch: a tag of one byte, a length, the invoice.
    fn begin_entry(&mut self, byte: u8) {
        if self.header.len() > 1 && byte < 0x80 {
            let length = self.header[1..].iter().rev();
            self.skip = length.fold(0, |sum, &byte| sum << 7 | usize::from(byte & 0x7f));
            self.tally.rows += 1;
            self.header.clear();
        }
    }
}

/// A message with gRPC's header before it.
pub fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    append(message, &mut bytes);
    bytes.freeze()
}

/// Appends a message with gRPC's header before it.
pub fn append(message: &impl Message, bytes: &mut BytesMut) {
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    // OK because a BytesMut grows.
    message.encode(bytes).expect("a BytesMut grows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Invoice, InvoiceBatch};

    /// The counts must not depend on where the frames are cut.
    #[test]
    fn counts_whatever_the_cuts() {
        let row = |n: usize| Invoice { memo: "m".repeat(n * 40), ..Default::default() };
        let mut batches = BytesMut::new();
        let mut rows = BytesMut::new();
        for n in 0..20 {
            append(&InvoiceBatch { invoices: (0..n).map(row).collect() }, &mut batches);
            append(&row(n), &mut rows);
        }
        for cut in 1..300 {
            let (mut of_batches, mut of_rows) = (Counter::new(true), Counter::new(false));
            batches.chunks(cut).for_each(|chunk| of_batches.take(chunk));
            rows.chunks(cut).for_each(|chunk| of_rows.take(chunk));
            assert_eq!((of_batches.tally.messages, of_batches.tally.rows), (20, 190));
            assert_eq!((of_rows.tally.messages, of_rows.tally.rows), (20, 20));
        }
    }
}
