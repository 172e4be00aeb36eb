//! What goes over the wire where the generated messages would not do.

use std::cell::Cell;
use std::fmt::Display;
use std::io::BufRead;
use std::marker::PhantomData;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method};
use protobuf::Message;

use crate::calls::rows::{parse, within};
use crate::calls::wire::{Incoming, OfRows};
use crate::error::{Error, Result};

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
    /// Hands the bytes of the message, under the name `what`, to `read`. More than `max_bytes` are not looked at.
    pub fn encoded(
        self,
        what: impl Display,
        max_bytes: usize,
        read: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<()> {
        within::<M::Row>(&what, self.bytes(), max_bytes)?;
        self.read(read)
    }
}

/// The pieces of a message together.
pub fn whole(mut reader: MessageReader) -> Result<Vec<u8>> {
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
pub struct Encoded {
    slice: Cell<GrpcSlice>,
    bytes: usize,
}

impl<B: Into<GrpcSlice>> From<B> for Encoded {
    fn from(bytes: B) -> Encoded {
        let slice = bytes.into();
        Encoded { bytes: slice.len(), slice: Cell::new(slice) }
    }
}

impl Encoded {
    /// Encodes it.
    pub fn of<M: Message>(message: &M) -> Result<Encoded> {
        let mut slice = GrpcSlice::default();
        let unfit = |error| Error::Internal(format!("a response cannot be encoded: {error}"));
        grpcio::pb_ser(message, &mut slice).map_err(unfit)?;
        Ok(slice.into())
    }

    /// The size on the wire.
    pub fn bytes(&self) -> usize {
        self.bytes
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

fn receive<M>(reader: MessageReader) -> grpcio::Result<Request<M>> {
    Ok(Request { reader, message: PhantomData })
}

fn send(encoded: &Encoded, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = encoded.slice.take();
    Ok(())
}

fn never_sent<M>(_: &Request<M>, _: &mut GrpcSlice) -> grpcio::Result<()> {
    unreachable!("a server sends no requests")
}

fn never_received(_: MessageReader) -> grpcio::Result<Encoded> {
    unreachable!("a server receives no responses")
}
