//! Jobs that wait, in the order of their turns: hosts take turns, the connections of a host take
//! turns at its turns, and of a connection the first comes first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::peer::{Full, Peer, Share};

/// The jobs that wait for the threads of one pool.
pub struct Turns<J> {
    capacity: usize,
    share: Share,
    /// Long jobs of one host that may run at once.
    max_long: usize,
    /// Those that run, by host.
    long: HashMap<Arc<str>, usize>,
    waiting: usize,
    last_id: u64,
    hosts: Ring<Host<J>>,
}

/// A job that has its turn.
pub struct Next<J> {
    pub job: J,
    /// The host of a long job, for [`Turns::end_long`].
    pub long: Option<Arc<str>>,
}

impl<J> Turns<J> {
    /// Room for `capacity` jobs, of which a peer may take its share; of `threads`, a host may have its
    /// share for long jobs.
    pub fn new(threads: usize, capacity: usize, share: Share) -> Turns<J> {
        Turns {
            capacity,
            share,
            max_long: share.of_host(threads),
            long: HashMap::new(),
            waiting: 0,
            last_id: 0,
            hosts: Ring::default(),
        }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts a job behind those of its connection. Returns its id.
    pub fn push(&mut self, peer: &Peer, is_long: bool, job: J) -> Result<u64, Full> {
        let host = self.hosts.get(peer.host());
        let connection = host.and_then(|host| host.connections.get(peer.connection()));
        let holds = (host.map_or(0, |host| host.waiting), connection.map_or(0, VecDeque::len));
        self.share.check(self.capacity - self.waiting, holds.0, holds.1)?;
        self.last_id += 1;
        self.waiting += 1;
        let host = self.hosts.line(peer.host());
        host.waiting += 1;
        host.connections.line(peer.connection()).push_back(Waiting {
            id: self.last_id,
            is_long,
            job,
        });
        Ok(self.last_id)
    }

    /// The job whose turn it is, of those that may run now.
    pub fn next(&mut self) -> Option<Next<J>> {
        let (long, max_long) = (&self.long, self.max_long);
        let (host, taken) = self.hosts.turn(|name, host| {
            let may_be_long = long.get(name).copied().unwrap_or(0) < max_long;
            host.next(may_be_long)
        })?;
        self.waiting -= 1;
        if taken.is_long {
            *self.long.entry(Arc::clone(&host)).or_insert(0) += 1;
        }
        Some(Next { job: taken.job, long: taken.is_long.then_some(host) })
    }

    /// A long job of `host` has ended.
    pub fn end_long(&mut self, host: &Arc<str>) {
        if let Some(running) = self.long.get_mut(host) {
            *running -= 1;
            if *running == 0 {
                self.long.remove(host);
            }
        }
    }

    /// Takes all out.
    pub fn clear(&mut self) -> impl Sized + use<J> {
        self.waiting = 0;
        std::mem::take(&mut self.hosts)
    }

    /// Takes a job out, if it still waits.
    pub fn remove(&mut self, peer: &Peer, id: u64) -> Option<J> {
        let removed = self.hosts.remove(peer.host(), |host| host.remove(peer, id))?;
        self.waiting -= 1;
        Some(removed.job)
    }
}

struct Waiting<J> {
    id: u64,
    is_long: bool,
    job: J,
}

/// What waits of a host.
struct Host<J> {
    waiting: usize,
    connections: Ring<VecDeque<Waiting<J>>>,
}

impl<J> Host<J> {
    fn next(&mut self, may_be_long: bool) -> Option<Waiting<J>> {
        let (_, taken) = self.connections.turn(|_, jobs| {
            let first = jobs.iter().position(|waiting| may_be_long || !waiting.is_long)?;
            jobs.remove(first)
        })?;
        self.waiting -= 1;
        Some(taken)
    }

    fn remove(&mut self, peer: &Peer, id: u64) -> Option<Waiting<J>> {
        let removed = self.connections.remove(peer.connection(), |jobs| {
            let place = jobs.binary_search_by_key(&id, |waiting| waiting.id).ok()?;
            jobs.remove(place)
        })?;
        self.waiting -= 1;
        Some(removed)
    }
}

impl<J> Default for Host<J> {
    fn default() -> Host<J> {
        Host { waiting: 0, connections: Ring::default() }
    }
}

impl<J> Line for Host<J> {
    fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

impl<J> Line for VecDeque<Waiting<J>> {
    fn is_empty(&self) -> bool {
        VecDeque::is_empty(self)
    }
}

trait Line: Default {
    fn is_empty(&self) -> bool;
}

/// Lines that take turns. None is empty.
struct Ring<L> {
    lines: HashMap<Arc<str>, L>,
    /// The names of the lines; the first has the next turn.
    turns: VecDeque<Arc<str>>,
}

impl<L> Default for Ring<L> {
    fn default() -> Ring<L> {
        Ring { lines: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<L: Line> Ring<L> {
    fn get(&self, name: &Arc<str>) -> Option<&L> {
        self.lines.get(name)
    }

    /// The line of that name, for something to be put into it.
    fn line(&mut self, name: &Arc<str>) -> &mut L {
        if !self.lines.contains_key(name) {
            self.turns.push_back(Arc::clone(name));
        }
        self.lines.entry(Arc::clone(name)).or_default()
    }

    /// Gives the turn to the first line that `take` takes something from, and the next one to others.
    fn turn<T>(
        &mut self,
        mut take: impl FnMut(&Arc<str>, &mut L) -> Option<T>,
    ) -> Option<(Arc<str>, T)> {
        let lines = &mut self.lines;
        let (place, taken, is_empty) =
            self.turns.iter().enumerate().find_map(|(place, name)| {
                let line = lines.get_mut(name)?;
                let taken = take(name, line)?;
                Some((place, taken, line.is_empty()))
            })?;
        let name = self.turns.remove(place)?;
        if is_empty {
            self.lines.remove(&name);
        } else {
            self.turns.push_back(Arc::clone(&name));
        }
        Some((name, taken))
    }

    /// Takes something out of a line, which keeps its turn.
    fn remove<T>(&mut self, name: &Arc<str>, take: impl FnOnce(&mut L) -> Option<T>) -> Option<T> {
        let line = self.lines.get_mut(name)?;
        let taken = take(line)?;
        if line.is_empty() {
            self.lines.remove(name);
            self.turns.retain(|turn| turn != name);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(host: u8, port: u16) -> Peer {
        Peer::new(&format!("ipv4:127.0.0.{host}:{port}"))
    }

    fn all(turns: &mut Turns<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.next()).map(|next| next.job).collect()
    }

    #[test]
    fn hosts_take_turns_and_then_connections() {
        let mut turns = Turns::new(2, 100, Share::ALL);
        for job in 10..14 {
            turns.push(&peer(1, 1), false, job).unwrap();
        }
        turns.push(&peer(1, 2), false, 20).unwrap();
        turns.push(&peer(1, 2), false, 21).unwrap();
        turns.push(&peer(2, 1), false, 30).unwrap();
        turns.push(&peer(2, 1), false, 31).unwrap();
        assert_eq!(all(&mut turns), [10, 30, 20, 31, 11, 21, 12, 13]);
    }

    #[test]
    fn long_jobs_of_a_host_leave_a_thread_to_others() {
        let share = Share { host_percent: 80, connection_percent: 60 };
        let mut turns = Turns::new(2, 100, share);
        for job in 10..13 {
            turns.push(&peer(1, job), true, job).unwrap();
        }
        let first = turns.next().unwrap();
        assert_eq!(first.job, 10);
        assert!(turns.next().is_none(), "the other thread is not for this host's long jobs");
        turns.push(&peer(1, 10), false, 20).unwrap();
        turns.push(&peer(2, 1), true, 30).unwrap();
        assert_eq!([turns.next(), turns.next()].map(|next| next.unwrap().job), [20, 30]);
        turns.end_long(&first.long.unwrap());
        assert_eq!(turns.next().unwrap().job, 11);
        assert!(turns.next().is_none());
        assert_eq!(turns.waiting(), 1);
    }

    #[test]
    fn the_only_thread_is_for_long_jobs_too() {
        let share = Share { host_percent: 1, connection_percent: 1 };
        let mut turns = Turns::new(1, 100, share);
        turns.push(&peer(1, 1), true, 1).unwrap();
        assert_eq!(turns.next().unwrap().job, 1);
    }

    #[test]
    fn a_peer_gets_its_share_of_the_room() {
        let share = Share { host_percent: 80, connection_percent: 60 };
        let mut turns = Turns::new(2, 100, share);
        let greedy = (0..).take_while(|i| turns.push(&peer(1, 1), false, *i).is_ok()).count();
        assert_eq!(greedy, 48);
        assert_eq!(turns.push(&peer(1, 1), false, 0), Err(Full::Connection));
        turns.push(&peer(1, 2), false, 0).unwrap();
        turns.push(&peer(2, 1), false, 0).unwrap();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8, u16, bool),
        Next,
        EndLong,
        /// Of the nth job that was pushed.
        Remove(usize),
    }

    proptest! {
        /// Whatever happens, each job comes out once, those of a connection in their order, and
        /// nothing is left behind.
        #[test]
        fn each_job_comes_out_once(steps in prop::collection::vec(prop_oneof![
            4 => (1..4u8, 1..4u16, any::<bool>()).prop_map(|(h, c, l)| Step::Push(h, c, l)),
            3 => Just(Step::Next),
            1 => Just(Step::EndLong),
            2 => (0..200usize).prop_map(Step::Remove),
        ], 1..200)) {
            let mut turns = Turns::new(2, 1000, Share::ALL);
            let (mut pushed, mut out, mut running) = (Vec::new(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Push(host, connection, is_long) => {
                        let (peer, job) = (peer(host, connection), pushed.len());
                        let id = turns.push(&peer, is_long, job).unwrap();
                        pushed.push((peer, id));
                    }
                    Step::Next => {
                        if let Some(next) = turns.next() {
                            out.push(next.job);
                            running.extend(next.long);
                        }
                    }
                    Step::EndLong => if let Some(host) = running.pop() { turns.end_long(&host) },
                    Step::Remove(n) => if let Some((peer, id)) = pushed.get(n) {
                        let removed = turns.remove(peer, *id);
                        prop_assert_eq!(removed.is_some(), !out.contains(&n));
                        out.extend(removed);
                    }
                }
                prop_assert_eq!(turns.waiting(), pushed.len() - out.len());
            }
            running.iter().for_each(|host| turns.end_long(host));
            while let Some(next) = turns.next() {
                out.push(next.job);
                next.long.iter().for_each(|host| turns.end_long(host));
            }
            out.sort();
            prop_assert_eq!(out, (0..pushed.len()).collect::<Vec<_>>());
            prop_assert!(turns.hosts.lines.is_empty() && turns.hosts.turns.is_empty());
            prop_assert!(turns.long.is_empty());
        }
    }
}
