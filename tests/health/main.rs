//! Health and reflection: what `grpc.health.v1` says follows what is so, tools need no proto file, and the calls
//! of both hold up neither clients nor a stop.

#[path = "../common/mod.rs"]
mod common;

#[path = "../security/certificates.rs"]
#[allow(dead_code)]
mod certificates;
mod client;
#[path = "../faults/disks.rs"]
mod disks;
mod follows;
mod limits;
mod protocol;
#[path = "../interop/python.rs"]
mod python;
mod stop;
mod tools;

use common::skip;
