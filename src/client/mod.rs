//! The other end of the service.

mod stub;

pub use stub::Stub;
