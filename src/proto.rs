//! The messages of the service, generated from `proto/`, which is their manual.

mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
}

// Details of statuses, as they are on the wire: `client::Error` has what they say.
pub use generated::admin;
#[doc(hidden)]
pub use generated::error_details;
pub use generated::report;
// The standard services of gRPC: see `services`.
#[doc(hidden)]
pub use generated::{health, reflection};
