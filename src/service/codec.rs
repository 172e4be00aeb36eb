//! What goes over the wire where the generated messages would not do.

use std::sync::Arc;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method};
use protobuf::Message;

use crate::error::{Error, Result};
use crate::store::encode::Chunk;

/// A request as it came. grpcio answers bytes that are not a message with INTERNAL; kept as a
/// value, the fault is the client's INVALID_ARGUMENT.
pub struct Request<M> {
    message: std::result::Result<M, String>,
    /// The size on the wire.
    pub bytes: usize,
}

impl<M> Request<M> {
    /// The message, or what is wrong with it, under the name `what`.
    pub fn message(self, what: &str) -> Result<M> {
        self.message.map_err(|why| Error::invalid(what, format!("not a valid message: {why}")))
    }
}

/// A response that is encoded already.
pub enum Encoded {
    /// One invoice of a chunk.
    Invoice(Arc<Chunk>, usize),
    /// All invoices of a chunk.
    Batch(Arc<Chunk>),
    Bytes(Vec<u8>),
}

/// A client's method as the server serves it, with responses that are encoded already.
pub fn encoded<Q: Message, P>(method: &Method<Q, P>) -> Method<Request<Q>, Encoded> {
    Method {
        ty: method.ty,
        name: method.name,
        req_mar: Marshaller { ser: never_sent, de: receive },
        resp_mar: Marshaller { ser: copy, de: never_received },
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

fn receive<M: Message>(reader: MessageReader) -> grpcio::Result<Request<M>> {
    let bytes = reader.len();
    let message = grpcio::pb_de(reader).map_err(|error| match error {
        grpcio::Error::Codec(error) => error.to_string(),
        other => other.to_string(),
    });
    Ok(Request { message, bytes })
}

fn copy(encoded: &Encoded, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    *buffer = GrpcSlice::from(match encoded {
        Encoded::Invoice(chunk, i) => chunk.invoice(*i),
        Encoded::Batch(chunk) => chunk.batch(),
        Encoded::Bytes(bytes) => &bytes[..],
    });
    Ok(())
}

fn never_sent<M>(_: &Request<M>, _: &mut GrpcSlice) -> grpcio::Result<()> {
    unreachable!("a server sends no requests")
}

fn never_received(_: MessageReader) -> grpcio::Result<Encoded> {
    unreachable!("a server receives no responses")
}
