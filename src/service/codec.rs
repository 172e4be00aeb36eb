//! What goes over the wire where the generated messages would not do.

use std::cell::Cell;
use std::fmt::Display;
use std::io::BufRead;
use std::marker::PhantomData;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method};
use protobuf::Message;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::proto::report::Summary;
use crate::service::wire::{self, Incoming, OfRows};

/// A request as it came.
///
/// It is measured and parsed here and not in gRPC. gRPC's own limit on messages costs a filter that
/// every message passes, in both directions: without it an export sends 1.28 times the rows a second.
/// (It looks at a message when all of it has come, as this does.) And grpcio answers bytes that are no
/// message with INTERNAL, where the fault is the client's INVALID_ARGUMENT.
pub struct Request<M> {
    reader: MessageReader,
    message: PhantomData<M>,
}

impl<M> Request<M> {
    /// The size on the wire.
    pub fn bytes(&self) -> usize {
        self.reader.len()
    }

    fn read<T>(mut self, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let bytes = self.bytes();
        let first = self.reader.fill_buf().map_err(unreadable)?;
        // Most messages are in one piece, which need not be copied.
        if first.len() == bytes {
            return read(first);
        }
        read(&whole(self.reader)?)
    }
}

impl<M: Incoming> Request<M> {
    /// The message, or what is wrong with it, under the name `what`. More than `max_bytes` are not looked at.
    pub fn message(self, what: impl Display, max_bytes: usize) -> Result<M> {
        within::<M>(&what, self.bytes(), max_bytes)?;
        self.read(|bytes| parse(what, bytes))
    }
}

impl<M: OfRows> Request<M> {
    /// Hands each row of the message to `take`, as it came, or says what is wrong with the message, under the
    /// name `what`. One over a limit of `config` is not looked at.
    pub fn rows(
        self,
        what: impl Display,
        config: &Config,
        take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        within::<M::Row>(&what, self.bytes(), config.max_message_bytes)?;
        self.read(|bytes| each_row::<M>(what, bytes, config.max_batch_rows, take))
    }
}

/// [`Request::rows`] of the bytes of a message.
pub fn each_row<M: OfRows>(
    what: impl Display,
    bytes: &[u8],
    max_rows: usize,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if !M::IS_BATCH {
        return take(bytes);
    }
    let malformed =
        |why| Error::invalid(what.to_string(), format!("begins a malformed batch: {why}"));
    let rows = wire::rows(bytes, max_rows).map_err(malformed)?;
    if rows.len() > max_rows {
        let message = format!("{what} begins a batch of more than {max_rows} rows, max_batch_rows");
        return Err(Error::Exhausted { message, retry_after: None });
    }
    rows.into_iter().try_for_each(take)
}

/// Refuses a message of more than `max_bytes`.
pub fn within<M: Incoming>(what: impl Display, bytes: usize, max_bytes: usize) -> Result<()> {
    if bytes <= max_bytes {
        return Ok(());
    }
    let message = format!("{what} has {bytes} bytes; {} is {max_bytes}", M::SIZE_LIMIT);
    Err(Error::Exhausted { message, retry_after: None })
}

/// The message in `bytes`, or what is wrong with it, under the name `what`.
pub fn parse<M: Incoming>(what: impl Display, bytes: &[u8]) -> Result<M> {
    wire::check(M::SHAPE, bytes)
        .and_then(|()| M::parse_from_bytes(bytes).map_err(|error| error.to_string()))
        .map_err(|why| Error::invalid(what.to_string(), format!("not a valid message: {why}")))
}

/// The pieces of a message together.
fn whole(mut reader: MessageReader) -> Result<Vec<u8>> {
    let mut whole = Vec::with_capacity(reader.len());
    while !reader.is_empty() {
        let piece = reader.fill_buf().map_err(unreadable)?;
        whole.extend_from_slice(piece);
        let bytes = piece.len();
        if bytes == 0 {
            // The reader of grpcio stands still at an empty piece.
            return Err(unreadable("an empty piece"));
        }
        reader.consume(bytes);
    }
    Ok(whole)
}

fn unreadable(why: impl Display) -> Error {
    Error::Internal(format!("a message of gRPC cannot be read: {why}"))
}

/// A response that is encoded already. (The `Cell` is for gRPC, which takes the bytes and is given a reference.)
pub struct Encoded(Cell<GrpcSlice>);

impl<B: Into<GrpcSlice>> From<B> for Encoded {
    fn from(bytes: B) -> Encoded {
        Encoded(Cell::new(bytes.into()))
    }
}

/// What answers a unary call.
pub trait Response {
    /// Its bytes that are kept until the client takes them.
    fn bytes(&self) -> usize;
}

impl Response for Encoded {
    fn bytes(&self) -> usize {
        let slice = self.0.take();
        let bytes = slice.len();
        self.0.set(slice);
        bytes
    }
}

/// It is small: a line a currency.
impl Response for Summary {
    fn bytes(&self) -> usize {
        0
    }
}

/// A client's method as the server serves it, with responses that are encoded already.
pub fn encoded<Q: Message, P>(method: &Method<Q, P>) -> Method<Request<Q>, Encoded> {
    Method {
        ty: method.ty,
        name: method.name,
        req_mar: Marshaller { ser: never_sent, de: receive },
        resp_mar: Marshaller { ser: send, de: never_received },
    }
}

/// A client's method as the server serves it.
pub fn parsed<Q: Message, P: Message>(method: &Method<Q, P>) -> Method<Request<Q>, P> {
    Method {
        ty: method.ty,
        name: method.name,
        req_mar: Marshaller { ser: never_sent, de: receive },
        resp_mar: Marshaller { ser: method.resp_mar.ser, de: method.resp_mar.de },
    }
}

fn receive<M>(reader: MessageReader) -> grpcio::Result<Request<M>> {
    Ok(Request { reader, message: PhantomData })
}

fn send(encoded: &Encoded, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = encoded.0.take();
    Ok(())
}

fn never_sent<M>(_: &Request<M>, _: &mut GrpcSlice) -> grpcio::Result<()> {
    unreachable!("a server sends no requests")
}

fn never_received(_: MessageReader) -> grpcio::Result<Encoded> {
    unreachable!("a server receives no responses")
}
