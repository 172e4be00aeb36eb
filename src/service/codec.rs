//! What goes over the wire where the generated messages would not do.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method};
use protobuf::Message;

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

impl<M: Message> Request<M> {
    /// The size on the wire.
    pub fn bytes(&self) -> usize {
        self.reader.len()
    }

    /// The message, or what is wrong with it, under the name `what`.
    pub fn message(self, what: impl fmt::Display, max_bytes: usize) -> Result<M> {
        let bytes = self.bytes();
        if bytes > max_bytes {
            let message = format!("{what} has {bytes} bytes; max_message_bytes is {max_bytes}");
            return Err(Error::Exhausted { message, retry_after: None });
        }
        grpcio::pb_de(self.reader).map_err(|error| {
            let why = match error {
                grpcio::Error::Codec(error) => error.to_string(),
                other => other.to_string(),
            };
            Error::invalid(what.to_string(), format!("not a valid message: {why}"))
        })
    }
}

/// A response that is encoded already. (The `Cell` is for gRPC, which takes the bytes and is given a reference.)
pub struct Encoded(Cell<GrpcSlice>);

impl<B: Into<GrpcSlice>> From<B> for Encoded {
    fn from(bytes: B) -> Encoded {
        Encoded(Cell::new(bytes.into()))
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
