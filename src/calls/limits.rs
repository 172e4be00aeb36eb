//! Admission: how many streams may be open, in all, of a host and on a connection. A permit is held
//! for as long as the work that it admits, and dropping it is all there is to give back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::peer::{Full, Peer, Share};
use crate::stop::Reason;
use crate::workers::Refused;

/// A kind of stream with a limit on how many are open.
pub struct Limit {
    name: &'static str,
    max: usize,
    share: Share,
    open: Mutex<Open>,
}

/// The streams that are open.
#[derive(Default)]
struct Open {
    all: usize,
    of_hosts: Counts,
    of_connections: Counts,
}

impl Limit {
    /// Streams that are open.
    pub fn open(&self) -> usize {
        self.lock().all
    }

    /// Takes `places`, which whoever holds none gets while one is free.
    fn take(&self, peer: &Peer, places: usize) -> std::result::Result<(), Full> {
        let mut open = self.lock();
        let free = self.max.saturating_sub(open.all);
        let (host, connection) =
            (open.of_hosts.get(peer.host()), open.of_connections.get(peer.connection()));
        self.share.check(free, host, connection)?;
        open.all += places;
        open.of_hosts.add(peer.host(), places);
        open.of_connections.add(peer.connection(), places);
        Ok(())
    }

    fn give_back(&self, peer: &Peer, places: usize) {
        let mut open = self.lock();
        open.all -= places;
        open.of_hosts.remove(peer.host(), places);
        open.of_connections.remove(peer.connection(), places);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// How many of something each name has; a name with none is not kept.
#[derive(Default)]
struct Counts(HashMap<Arc<str>, usize>);

impl Counts {
    fn get(&self, name: &Arc<str>) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, name: &Arc<str>, places: usize) {
        *self.0.entry(Arc::clone(name)).or_insert(0) += places;
    }

    fn remove(&mut self, name: &Arc<str>, places: usize) {
        if let Some(count) = self.0.get_mut(name) {
            *count -= places;
            if *count == 0 {
                self.0.remove(name);
            }
        }
    }
}

/// An answer from which on it counts in `max_answer_bytes`.
const LARGE_ANSWER_BYTES: usize = 16 << 10;

/// The limits of one server.
pub struct Limits {
    pub exports: Arc<Limit>,
    pub uploads: Arc<Limit>,
    pub reconciles: Arc<Limit>,
    pub backups: Arc<Limit>,
    /// Bytes of large answers that wait for their clients.
    answers: Arc<Limit>,
    /// Streams of every kind.
    connections: Arc<Mutex<Counts>>,
    max_streams_per_connection: usize,
    max_queued_unary: usize,
    share: Share,
    retry_delay: Duration,
}

impl Limits {
    pub fn new(config: &Config) -> Limits {
        let share = config.share();
        let limit = |name, max| Arc::new(Limit { name, max, share, open: Mutex::default() });
        Limits {
            exports: limit("max_exports", config.max_exports),
            uploads: limit("max_uploads", config.max_uploads),
            reconciles: limit("max_reconciles", config.max_reconciles),
            backups: limit("max_backups", config.max_backups),
            answers: limit("max_answer_bytes", config.max_answer_bytes),
            connections: Arc::default(),
            max_streams_per_connection: config.max_streams_per_connection,
            max_queued_unary: config.max_queued_unary,
            share,
            retry_delay: Duration::from_millis(config.retry_delay_ms),
        }
    }

    /// Admits a stream of `peer`, or refuses it at once.
    pub fn admit(&self, limit: &Arc<Limit>, peer: &Peer) -> Result<Permit> {
        let most = self.max_streams_per_connection;
        let mut connections = lock(&self.connections);
        if connections.get(peer.connection()) >= most {
            return Err(self.exhausted(format!("max_streams_per_connection of {most} are open")));
        }
        let held = self.held(limit, peer, 1, "are open")?;
        connections.add(peer.connection(), 1);
        Ok(Permit { held, connections: Arc::clone(&self.connections) })
    }

    fn held(&self, limit: &Arc<Limit>, peer: &Peer, places: usize, held: &str) -> Result<Held> {
        limit.take(peer, places).map_err(|full| self.full(limit.name, limit.max, held, full))?;
        Ok(Held { limit: Arc::clone(limit), peer: peer.clone(), places })
    }

    /// Admits an answer of so many bytes, which gRPC keeps until its client takes it, or refuses it. A small
    /// one is as good as none.
    pub fn hold(&self, bytes: usize, peer: impl FnOnce() -> Peer) -> Result<Option<Held>> {
        if bytes < LARGE_ANSWER_BYTES {
            return Ok(None);
        }
        self.held(&self.answers, &peer(), bytes, "bytes wait for their clients").map(Some)
    }

    /// Why a unary call was not queued.
    pub fn unary_refused(&self, refused: Refused) -> Error {
        match refused {
            Refused::Full(full) => {
                self.full("max_queued_unary", self.max_queued_unary, "calls wait", full)
            }
            Refused::Stopped => Reason::Stopping.into(),
        }
    }

    fn full(&self, name: &str, max: usize, held: &str, full: Full) -> Error {
        let Share { host_percent, connection_percent } = self.share;
        self.exhausted(match full {
            Full::All => format!("{name} of {max} {held}"),
            Full::Host => {
                format!("{name} of {max}: this host has its share, host_share_percent of {host_percent}")
            }
            Full::Connection => format!(
                "{name} of {max}: this connection has its share, \
                 connection_share_percent of {connection_percent}"
            ),
        })
    }

    /// RESOURCE_EXHAUSTED, with when to try again.
    pub fn exhausted(&self, message: String) -> Error {
        Error::Exhausted { message, retry_after: Some(self.retry_delay) }
    }
}

fn lock(connections: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    connections.lock().unwrap_or_else(|e| e.into_inner())
}

/// Places of a limit, which are free when it is dropped.
pub struct Held {
    limit: Arc<Limit>,
    peer: Peer,
    places: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.limit.give_back(&self.peer, self.places);
    }
}

/// The place of one open stream.
pub struct Permit {
    held: Held,
    connections: Arc<Mutex<Counts>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.connections).remove(self.held.peer.connection(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(config: Config) -> Limits {
        Limits::new(&config)
    }

    fn peer(host: u8, port: u16) -> Peer {
        Peer::new(&format!("ipv4:127.0.0.{host}:{port}"))
    }

    #[test]
    fn past_a_limit_a_stream_is_refused_until_another_ends() {
        let limits = limits(Config { max_exports: 3, ..Config::default() });
        let admit = |host: u8| limits.admit(&limits.exports, &peer(host, 1));
        let held = [1, 1, 2].map(|host| admit(host).unwrap());
        let refused = admit(3).err().unwrap();
        assert!(refused.to_string().contains("max_exports of 3 are open"), "{refused}");
        drop(held);
        assert!(admit(3).is_ok());
        assert_eq!(limits.exports.open(), 0);
        assert!(limits.exports.lock().of_hosts.0.is_empty());
        assert!(limits.exports.lock().of_connections.0.is_empty());
    }

    #[test]
    fn nobody_takes_what_all_need() {
        let limits = limits(Config { max_uploads: 10, ..Config::default() });
        let admit = |host, port| limits.admit(&limits.uploads, &peer(host, port));
        let fill =
            |host, port| -> Vec<_> { std::iter::from_fn(|| admit(host, port).ok()).collect() };
        let held = fill(1, 1);
        assert_eq!(held.len(), 5);
        let refused = admit(1, 1).err().unwrap().to_string();
        assert!(refused.contains("this connection has its share"), "{refused}");
        let others: Vec<_> = (2..20).flat_map(|port| fill(1, port)).collect();
        let refused = admit(1, 20).err().unwrap().to_string();
        assert!(refused.contains("this host has its share"), "{refused}");
        assert_eq!(others.len(), 3);
        assert!(admit(2, 1).is_ok());
    }

    #[test]
    fn a_connection_has_its_own_limit() {
        let limits = limits(Config { max_streams_per_connection: 2, ..Config::default() });
        let admit = |limit, port| limits.admit(limit, &peer(1, port));
        let held = (admit(&limits.exports, 1).unwrap(), admit(&limits.uploads, 1).unwrap());
        let refused = admit(&limits.reconciles, 1).err().unwrap().to_string();
        assert!(refused.contains("max_streams_per_connection of 2"), "{refused}");
        assert!(admit(&limits.reconciles, 2).is_ok());
        drop(held);
        assert!(lock(&limits.connections).0.is_empty());
    }
}
