//! One thread that looks after all calls that wait, in place of a timer for each.
//!
//! A call that waits for its client, for a worker or for its end is on a list with the time of its next
//! look. Being put on the list and taken off it costs a tenth of a microsecond, and no other thread is
//! woken by it; a look is late by up to two ticks.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use futures::future::poll_fn;
use slab::Slab;

use crate::error::{Error, Result};
use crate::stop::Stop;

/// The time between two rounds over the list.
const TICK: Duration = Duration::from_millis(25);
/// Rounds between two looks at the stops, some of which ask the clock: 0.2 seconds.
const ROUNDS_A_STOP: u64 = 8;
/// Calls that are looked at before the list is free for others for a moment.
const AT_ONCE: usize = 256;

/// A handle of the thread.
#[derive(Clone, Default)]
pub struct Sweep(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The rounds so far: a clock in ticks. It stands still while the list is empty.
    rounds: AtomicU64,
    /// Times that everyone was looked at between the rounds.
    hurries: AtomicU64,
    list: Mutex<List>,
    /// Wakes the thread when the list is not empty any more, and when it is closed.
    called: Condvar,
}

#[derive(Default)]
struct List {
    waits: Slab<Wait>,
    is_asleep: bool,
    is_closed: bool,
}

/// A call that waits.
struct Wait {
    task: Waker,
    /// The round that wakes it; [`NEVER`] once it was woken.
    due: u64,
    /// Wakes it too.
    stop: Option<Stop>,
}

const NEVER: u64 = u64::MAX;

/// What a look at a call that waits finds.
pub enum Look<T> {
    /// The wait is over, with this.
    Over(T),
    /// Nothing; look again after this time.
    In(Duration),
}

impl Sweep {
    /// Starts the thread. It ends after [`Sweep::close`].
    pub fn start(&self) -> Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.0);
        let thread = Builder::new().name("billstream-sweep".to_owned());
        thread
            .spawn(move || while shared.next() {})
            .map_err(|e| Error::Unusable(format!("cannot start the sweep thread: {e}")))
    }

    /// A place on the list, for the waits of a call. (One for all of them costs less than one for each.)
    pub fn place(&self) -> Place<'_> {
        Place { shared: &self.0, key: None, task: None, due: 0 }
    }

    /// [`Place::within`], with a place for it alone.
    pub async fn within<T>(
        &self,
        work: impl Future<Output = T>,
        limit: impl Fn() -> Duration,
    ) -> Option<T> {
        self.place().within(work, limit).await
    }

    /// [`Place::watch`], with a place for it alone.
    pub async fn watch<T>(
        &self,
        stop: Option<&Stop>,
        work: impl Future<Output = T>,
        look: impl FnMut() -> Look<T>,
    ) -> T {
        self.place().watch(stop, work, look).await
    }

    /// Has every call that waits looked at now.
    pub fn hurry(&self) {
        self.0.hurries.fetch_add(1, Ordering::Relaxed);
        self.0.wake(|_| true);
    }

    /// Ends the thread.
    pub fn close(&self) {
        self.0.list().is_closed = true;
        self.0.called.notify_one();
    }
}

fn ticks(time: Duration) -> u64 {
    const A_SECOND: u64 = 1_000_000_000 / TICK.as_nanos() as u64;
    let part = u64::from(time.subsec_nanos()).div_ceil(TICK.as_nanos() as u64);
    time.as_secs().saturating_mul(A_SECOND).saturating_add(part).min(NEVER / 2)
}

impl Shared {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// One round; whether there is to be another.
    fn next(&self) -> bool {
        let mut list = self.list();
        while list.waits.is_empty() && !list.is_closed {
            list.is_asleep = true;
            list = self.called.wait(list).unwrap_or_else(|e| e.into_inner());
        }
        list.is_asleep = false;
        if list.is_closed {
            return false;
        }
        drop(self.called.wait_timeout(list, TICK));
        self.round();
        true
    }

    fn round(&self) {
        let now = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        let looks_at_stops = now.is_multiple_of(ROUNDS_A_STOP);
        self.wake(|wait| {
            let is_stopped = || wait.stop.as_ref().is_some_and(Stop::is_stopped);
            now >= wait.due || (looks_at_stops && is_stopped())
        });
    }

    /// Wakes those of the calls that wait.
    fn wake(&self, is_due: impl Fn(&Wait) -> bool) {
        for from in (0..).step_by(AT_ONCE) {
            let mut list = self.list();
            if from >= list.waits.capacity() {
                return;
            }
            let due = (from..from + AT_ONCE).filter_map(|key| {
                let wait = list.waits.get_mut(key).filter(|wait| is_due(wait))?;
                // Who is woken for another reason may look no more this round, and keeps its time.
                if wait.due <= self.rounds() {
                    wait.due = NEVER;
                }
                Some(wait.task.clone())
            });
            let due: Vec<Waker> = due.collect();
            drop(list);
            due.into_iter().for_each(Waker::wake);
        }
    }
}

/// The place of a call on the list, which it leaves when this is dropped.
pub struct Place<'a> {
    shared: &'a Shared,
    key: Option<usize>,
    task: Option<Waker>,
    /// The round of the next look.
    due: u64,
}

impl Place<'_> {
    /// The result of `work`, or `None` when the time that `limit` gives passes before it. (It is asked at
    /// each look, and may change its mind.)
    pub async fn within<T>(
        &mut self,
        work: impl Future<Output = T>,
        limit: impl Fn() -> Duration,
    ) -> Option<T> {
        let shared = self.shared;
        let begin = shared.rounds();
        let look = || {
            // The first round may have come at once.
            let waited = TICK.saturating_mul((shared.rounds() - begin).saturating_sub(1) as u32);
            match limit().saturating_sub(waited) {
                Duration::ZERO => Look::Over(None),
                left => Look::In(left),
            }
        };
        self.watch(None, async { Some(work.await) }, look).await
    }

    /// The result of `work`, or what a `look` finds before it. There is a look when the wait begins, when
    /// the time is come that the last one asked for, after `stop` came about, and now and then.
    pub async fn watch<T>(
        &mut self,
        stop: Option<&Stop>,
        work: impl Future<Output = T>,
        mut look: impl FnMut() -> Look<T>,
    ) -> T {
        let mut work = pin!(work);
        let shared = self.shared;
        let place = self;
        let mut looked = (0, 0);
        poll_fn(|cx| {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let is_listed = place.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
            let now = (shared.rounds(), shared.hurries.load(Ordering::Relaxed));
            if is_listed && now == looked {
                return Poll::Pending;
            }
            looked = now;
            match look() {
                Look::Over(result) => Poll::Ready(result),
                Look::In(time) => {
                    place.set(cx.waker(), now.0 + 1 + ticks(time), stop);
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn set(&mut self, task: &Waker, due: u64, stop: Option<&Stop>) {
        let is_known = self.task.as_ref().is_some_and(|known| known.will_wake(task));
        // A look that comes sooner will ask for this one, where it is still wanted: most calls are over by then.
        if is_known && stop.is_none() && self.shared.rounds() < self.due && self.due <= due {
            return;
        }
        self.due = due;
        let mut list = self.shared.list();
        match self.key {
            Some(key) => {
                list.waits[key].due = due;
                if !list.waits[key].task.will_wake(task) {
                    list.waits[key].task = task.clone();
                }
            }
            None => {
                let wait = Wait { task: task.clone(), due, stop: stop.cloned() };
                self.key = Some(list.waits.insert(wait));
                if std::mem::take(&mut list.is_asleep) {
                    self.shared.called.notify_one();
                }
            }
        }
        drop(list);
        if !is_known {
            self.task = Some(task.clone());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut list = self.shared.list();
        list.waits.remove(key);
        // After many calls at once, such as an attack.
        if list.waits.is_empty() && list.waits.capacity() > 16 * AT_ONCE {
            list.waits = Slab::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Reason;
    use futures::executor::block_on;
    use futures::future::{join_all, pending, ready};

    fn started<T>(test: impl FnOnce(&Sweep) -> T) -> T {
        let sweep = Sweep::default();
        let thread = sweep.start().unwrap();
        let result = test(&sweep);
        assert!(sweep.0.list().waits.is_empty(), "who waits no more leaves nothing behind");
        sweep.close();
        thread.join().unwrap();
        result
    }

    #[test]
    fn work_that_is_done_is_not_looked_at() {
        started(|sweep| block_on(sweep.watch(None, ready(()), || panic!("a look"))));
    }

    #[test]
    fn a_wait_is_looked_at_when_its_time_is_come() {
        let looks = started(|sweep| {
            let mut looks = 0;
            block_on(sweep.watch(None, pending(), || {
                looks += 1;
                if looks < 3 {
                    Look::In(TICK)
                } else {
                    Look::Over(looks)
                }
            }))
        });
        assert_eq!(looks, 3);
    }

    #[test]
    fn a_wait_that_is_woken_for_nothing_keeps_its_time() {
        started(|sweep| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while sweep.0.list().waits.is_empty() {
                        std::thread::yield_now();
                    }
                    sweep.0.wake(|_| true);
                });
                let mut looks = 0;
                block_on(sweep.watch(None, pending(), || {
                    looks += 1;
                    if looks < 3 {
                        Look::In(2 * TICK)
                    } else {
                        Look::Over(())
                    }
                }));
            });
        });
    }

    #[test]
    fn everyone_is_looked_at_in_a_hurry_and_after_a_stop() {
        started(|sweep| {
            let (stop, hurry) = (Stop::default(), Stop::default());
            // Told without a word to anyone: the rounds find it.
            let passed = stop.clone();
            let stopped = Stop::default().when(move || passed.is_stopped(), Reason::Deadline);
            let wait = |wakes: Option<&Stop>, over: Stop| {
                let wakes = wakes.cloned();
                async move {
                    let day = Duration::from_secs(86_400);
                    let look = || over.reason().map_or(Look::In(day), Look::Over);
                    sweep.watch(wakes.as_ref(), pending(), look).await
                }
            };
            let all = (0..1000).map(|i| match i % 2 {
                0 => wait(None, hurry.clone()),
                _ => wait(Some(&stopped), stopped.clone()),
            });
            let all = join_all(all.map(Box::pin));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while sweep.0.list().waits.len() < 1000 {
                        std::thread::yield_now();
                    }
                    hurry.stop(Reason::Stopping);
                    sweep.hurry();
                    stop.stop(Reason::ClientGone);
                });
                let reasons = block_on(all);
                assert_eq!(reasons.iter().filter(|r| **r == Reason::Stopping).count(), 500);
                assert_eq!(reasons.iter().filter(|r| **r == Reason::Deadline).count(), 500);
            });
        });
    }
}
