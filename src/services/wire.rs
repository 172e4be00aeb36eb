//! The messages of the services on the wire.

use std::io::BufRead;

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method, MethodType, RpcStatus, RpcStatusCode};
use protobuf::Message;

/// The largest request in bytes: a name or two. A larger one is RESOURCE_EXHAUSTED.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;

/// A request, or how its call is to end. (What fails in gRPC itself is INTERNAL, whoever's fault it is.)
pub type Received<M> = Result<M, RpcStatus>;

/// A method as the server serves it.
pub const fn method<Q: Message, P: Message>(
    ty: MethodType,
    name: &'static str,
) -> Method<Received<Q>, P> {
    Method {
        ty,
        name,
        req_mar: Marshaller { ser: never_sent, de: receive },
        resp_mar: Marshaller { ser: send, de: never_received },
    }
}

fn receive<M: Message>(mut reader: MessageReader) -> grpcio::Result<Received<M>> {
    let bytes = reader.len();
    if bytes > MAX_REQUEST_BYTES {
        let why = format!("a request of {bytes} bytes; the limit is {MAX_REQUEST_BYTES}");
        return Ok(Err(RpcStatus::with_message(RpcStatusCode::RESOURCE_EXHAUSTED, why)));
    }
    let mut whole = Vec::with_capacity(bytes);
    // The reader stands still at an empty piece, which is then the end of a message that is cut.
    while let Some(piece) = reader.fill_buf().ok().filter(|piece| !piece.is_empty()) {
        whole.extend_from_slice(piece);
        let bytes = piece.len();
        reader.consume(bytes);
    }
    let message = if whole.len() == bytes { M::parse_from_bytes(&whole).ok() } else { None };
    Ok(message.ok_or_else(|| {
        let why = format!("the request is no {}", M::NAME);
        RpcStatus::with_message(RpcStatusCode::INVALID_ARGUMENT, why)
    }))
}

fn send<P: Message>(message: &P, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
    grpcio::pb_ser(message, buffer)
}

fn never_sent<M>(_: &Received<M>, _: &mut GrpcSlice) -> grpcio::Result<()> {
    unreachable!("a server sends no requests")
}

fn never_received<P>(_: MessageReader) -> grpcio::Result<P> {
    unreachable!("a server receives no responses")
}
