//! tonic's codec for responses that are protobuf bytes already. Requests are decoded by prost.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::codec::{BufferSettings, EncodeBuf};
use tonic::Status;
use tonic_prost::ProstDecoder;

/// For rpcs with one response: tonic's own buffer size.
pub type One<T> = Codec<T, { 8 << 10 }>;
/// For streams: a buffer of small messages never grows by copying.
pub type Stream<T> = Codec<T, { 64 << 10 }>;

pub struct Codec<T, const BUFFER: usize>(PhantomData<T>);

impl<T, const BUFFER: usize> Default for Codec<T, BUFFER> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T: Message + Default + 'static, const BUFFER: usize> tonic::codec::Codec for Codec<T, BUFFER> {
    type Encode = Bytes;
    type Decode = T;
    type Encoder = Encoder<BUFFER>;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> Encoder<BUFFER> {
        Encoder
    }

    fn decoder(&mut self) -> ProstDecoder<T> {
        ProstDecoder::default()
    }
}

pub struct Encoder<const BUFFER: usize>;

impl<const BUFFER: usize> tonic::codec::Encoder for Encoder<BUFFER> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // tonic sends its buffer when it has this much: of small messages just under three DATA
        // frames of 16 KiB, so that there is no small fourth.
        BufferSettings::new(BUFFER, BUFFER / 4 * 3 - 128)
    }
}
