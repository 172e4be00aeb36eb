//! What every fuzz target holds the decoders of requests to.

use billstream::error::Error;
use billstream::grpc::decoders::{self, Decoder};

/// Two ids, a currency and a memo.
const MAX_KEPT_BYTES: usize = 2 * 128 + 1024 + 128;

/// Decodes: what is taken is small, and what is refused is the client's fault, in a status that fits.
pub fn decode(decoder: Decoder, bytes: &[u8]) {
    match decoder(bytes) {
        Ok(kept) => assert!(kept <= MAX_KEPT_BYTES, "{kept} bytes are kept"),
        Err(error) => {
            assert!(matches!(error, Error::Invalid(_) | Error::Exhausted { .. }), "{error:?}");
            let status = decoders::status(&error);
            assert!(status.message().len() <= 1 << 10 && status.details().len() <= 4 << 10);
        }
    }
}
