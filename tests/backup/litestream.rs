//! Litestream.
