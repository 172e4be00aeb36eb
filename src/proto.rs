//! The generated messages of `proto/`.

include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
