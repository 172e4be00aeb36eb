#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    billstream_fuzz::decode(billstream::grpc::decoders::invoice, bytes)
});
