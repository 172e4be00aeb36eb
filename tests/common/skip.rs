//! Tests that need what a machine may lack.

/// Says why a test does nothing. Where all is there (`.ci/run`) BILLSTREAM_TEST_NO_SKIP is set, and it fails.
pub fn skip(why: &str) {
    assert!(std::env::var_os("BILLSTREAM_TEST_NO_SKIP").is_none(), "skipped: {why}");
    println!("skipped: {why}");
}

/// Whether this C core has the patches; says so when it has not.
pub fn core_is_patched() -> bool {
    let patched = billstream::server::core_is_patched();
    if !patched {
        skip("this gRPC C core is without the patches of build/grpc-patches.cmake");
    }
    patched
}
