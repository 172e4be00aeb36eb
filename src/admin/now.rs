//! What a server is doing at this moment, counted up for whoever asks.

use std::sync::atomic::Ordering;

use crate::calls::live::State;
use crate::calls::Core;
use crate::method::Method;
use crate::workers::Load;

/// The jobs that wait for threads, by their queue.
pub fn queues(core: &Core) -> [(&'static str, Load); 3] {
    [("unary", core.unary.load()), ("export", core.exports.load()), ("spool", core.spool.load())]
}

/// A limit on what is open.
pub struct Limit {
    pub name: &'static str,
    pub open: usize,
    pub max: usize,
}

pub fn limits(core: &Core) -> [Limit; 3] {
    let (limits, config) = (&core.limits, &core.config);
    let limit = |name, open, max| Limit { name, open, max };
    [
        limit("max_exports", limits.exports.open(), config.max_exports),
        limit("max_uploads", limits.uploads.open(), config.max_uploads),
        limit("max_reconciles", limits.reconciles.open(), config.max_reconciles),
    ]
}

/// How many streams of each method are in each state.
pub fn streams(core: &Core) -> Vec<((Method, State), usize)> {
    let streaming = Method::ALL.into_iter().filter(|method| method.is_stream());
    let states = streaming.flat_map(|method| State::ALL.map(|state| (method, state)));
    let mut counts: Vec<_> = states.map(|key| (key, 0)).collect();
    for live in core.streams.all() {
        let key = (live.method(), live.state().0);
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == key) {
            *count += 1;
        }
    }
    counts
}

/// Connections that readers have, at their start and always.
pub fn connections(core: &Core) -> usize {
    core.config.reader_connections()
}

pub fn calls_open(core: &Core) -> usize {
    core.calls_open.load(Ordering::Relaxed)
}
