//! Which gRPC C core this is: one with the patches of `build/grpc-patches.cmake`, or any other.

use std::sync::{Arc, OnceLock};
use std::thread;

use grpcio::{ChannelBuilder, EnvBuilder, ServerBuilder, ServerCredentials};

/// The number of the patches that this server knows.
const PATCHES: u16 = 3;

/// What a core without the patches lacks, in one line.
pub const UNPATCHED: &str = "this gRPC C core is without the patches of billstream: one hostile client can keep \
    everyone out by resetting streams, and some errors of accept end the listener; see docs/proxy.md";

/// Whether the C core has the patches of `build/grpc-patches.cmake`. The distribution's has not, nor one
/// that was built without `.cargo/config.toml`.
///
/// The core itself tells: asked with an argument of ours to listen on a free port, a patched one listens
/// nowhere and gives the number of its patches, which is no port that a system gives away. Any other core
/// does not know the argument, and gives a port.
pub fn core_is_patched() -> bool {
    static PATCHED: OnceLock<bool> = OnceLock::new();
    // On a thread of its own: grpcio waits for the end of a server with an executor, which panics inside
    // another one.
    *PATCHED.get_or_init(|| thread::spawn(ask).join().ok().flatten() == Some(PATCHES))
}

fn ask() -> Option<u16> {
    let env = Arc::new(EnvBuilder::new().cq_count(1).name_prefix("billstream-ask").build());
    let args = ChannelBuilder::new(Arc::clone(&env))
        .raw_cfg_int(c"grpc.billstream.patches".to_owned(), 1)
        .build_args();
    let mut server = ServerBuilder::new(env).channel_args(args).build().ok()?;
    server.add_listening_port("127.0.0.1:0", ServerCredentials::insecure()).ok()
}
