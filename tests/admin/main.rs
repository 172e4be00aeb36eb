//! The operator's HTTP: what it answers and refuses, what its numbers say, and Prometheus itself on them.

#[path = "../common/mod.rs"]
mod common;

mod browser;
mod counters;
mod documented;
mod http;
mod page;
mod prometheus;
mod status;
mod support;
