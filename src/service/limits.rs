//! Admission: how many streams may be open, in all and on a connection. A permit is held for as
//! long as its stream, and dropping it is all there is to give back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, Result};

/// How many streams each connection has open, by its peer.
type Connections = Arc<Mutex<HashMap<String, usize>>>;

/// A kind of stream with a limit on how many are open.
pub struct Limit {
    name: &'static str,
    max: usize,
    open: AtomicUsize,
}

impl Limit {
    fn new(name: &'static str, max: usize) -> Arc<Limit> {
        Arc::new(Limit { name, max, open: AtomicUsize::new(0) })
    }

    /// Streams that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// The limits of one server.
pub struct Limits {
    pub exports: Arc<Limit>,
    pub uploads: Arc<Limit>,
    pub reconciles: Arc<Limit>,
    connections: Connections,
    max_streams_per_connection: usize,
    retry_delay: Duration,
}

impl Limits {
    pub fn new(config: &Config) -> Limits {
        Limits {
            exports: Limit::new("max_exports", config.max_exports),
            uploads: Limit::new("max_uploads", config.max_uploads),
            reconciles: Limit::new("max_reconciles", config.max_reconciles),
            connections: Arc::default(),
            max_streams_per_connection: config.max_streams_per_connection,
            retry_delay: Duration::from_millis(config.retry_delay_ms),
        }
    }

    /// Admits a stream of the connection from `peer`, or refuses it at once.
    pub fn admit(&self, limit: &Arc<Limit>, peer: String) -> Result<Permit> {
        let mut permit = Permit { limit: Arc::clone(limit), connection: None };
        if limit.open.fetch_add(1, Ordering::Relaxed) >= limit.max {
            return Err(self.exhausted(format!("{} of {} are open", limit.name, limit.max)));
        }
        let mut connections = self.connections.lock().unwrap_or_else(|e| e.into_inner());
        let open = connections.entry(peer.clone()).or_insert(0);
        if *open >= self.max_streams_per_connection {
            let max = self.max_streams_per_connection;
            return Err(self.exhausted(format!("max_streams_per_connection of {max} are open")));
        }
        *open += 1;
        permit.connection = Some((Arc::clone(&self.connections), peer));
        Ok(permit)
    }

    /// RESOURCE_EXHAUSTED, with when to try again.
    pub fn exhausted(&self, message: String) -> Error {
        Error::Exhausted { message, retry_after: Some(self.retry_delay) }
    }
}

/// The place of one open stream.
pub struct Permit {
    limit: Arc<Limit>,
    connection: Option<(Connections, String)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.open.fetch_sub(1, Ordering::Relaxed);
        let Some((connections, peer)) = self.connection.take() else { return };
        let mut connections = connections.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(open) = connections.get_mut(&peer) {
            *open -= 1;
            if *open == 0 {
                connections.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(&Config { max_exports: 3, max_streams_per_connection: 2, ..Config::default() })
    }

    #[test]
    fn past_a_limit_a_stream_is_refused_until_another_ends() {
        let limits = limits();
        let admit = |peer: &str| limits.admit(&limits.exports, peer.to_owned());
        let held = [admit("a").unwrap(), admit("a").unwrap(), admit("b").unwrap()];
        let refused = admit("c").err().unwrap();
        assert!(refused.to_string().contains("max_exports of 3"), "{refused}");
        drop(held);
        assert!(admit("c").is_ok());
        assert_eq!(limits.exports.open(), 0);
    }

    #[test]
    fn a_connection_has_its_own_limit() {
        let limits = limits();
        let admit = |peer: &str| limits.admit(&limits.exports, peer.to_owned());
        let held = [admit("a").unwrap(), admit("a").unwrap()];
        assert!(admit("a").err().unwrap().to_string().contains("max_streams_per_connection of 2"));
        assert!(admit("b").is_ok());
        drop(held);
        assert!(limits.connections.lock().unwrap().is_empty());
    }
}
