//! Methods whose batches are bytes: what is encoded already goes as it is, and what comes is read in place.

use grpcio::{GrpcSlice, Marshaller, MessageReader, Method};

use crate::grpc::codec::whole;

/// `method` with requests that are encoded already.
pub const fn sending<Q, P>(method: &Method<Q, P>) -> Method<Vec<u8>, P> {
    Method {
        ty: method.ty,
        name: method.name,
        req_mar: BYTES,
        resp_mar: Marshaller { ser: method.resp_mar.ser, de: method.resp_mar.de },
    }
}

/// `method` with responses as they come.
pub const fn receiving<Q, P>(method: &Method<Q, P>) -> Method<Q, Vec<u8>> {
    Method {
        ty: method.ty,
        name: method.name,
        req_mar: Marshaller { ser: method.req_mar.ser, de: method.req_mar.de },
        resp_mar: BYTES,
    }
}

const BYTES: Marshaller<Vec<u8>> = Marshaller {
    ser: |bytes, slice| {
        *slice = GrpcSlice::from(&bytes[..]);
        Ok(())
    },
    de: take,
};

fn take(reader: MessageReader) -> grpcio::Result<Vec<u8>> {
    whole(reader).map_err(|error| grpcio::Error::Codec(error.into()))
}
