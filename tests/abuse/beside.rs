//! The well-behaved client beside an attack, and what it saw.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::SummaryRequest;
use grpcio::CallOption;

use crate::common::process::Process;
use crate::common::{eventually, DEADLINE};

/// The most that a server may take in any of these attacks.
const MOST_MIB: u64 = 512;

/// How long an attack lasts; the long form is asked for.
pub fn duration() -> Duration {
    let seconds = std::env::var("BILLSTREAM_ABUSE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(1.5))
}

/// What was seen beside an attack.
pub struct Seen {
    /// The times of all calls, in order of size.
    times: Vec<Duration>,
    /// From the end of the attack until calls took what they did before it.
    recovery: Duration,
    rss_mib: u64,
    peak_rss_mib: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let at = |share: f64| self.times[((self.times.len() - 1) as f64 * share) as usize];
        write!(
            f,
            "{} calls, none failed, p50 {:?}, p99 {:?}, longest {:?}; back after {:?}; RSS at most {} MiB, then {} MiB",
            self.times.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            self.recovery,
            self.peak_rss_mib,
            self.rss_mib
        )
    }
}

/// Runs an attack that ends by itself, while one client calls and another one connects anew for each call.
/// No call may fail, and the memory has a bound.
pub fn beside(name: &str, server: &Process, attack: impl FnOnce() + Send) -> Seen {
    let over = AtomicBool::new(false);
    let kept = Stub::new(&server.addr);
    let usual = 10 * call(&kept);
    let (mut times, recovery) = thread::scope(|scope| {
        let kept = scope.spawn(|| calls(&over, || call(&kept)));
        let anew = scope.spawn(|| calls(&over, || call(&Stub::new(&server.addr))));
        attack();
        let end = Instant::now();
        let client = Stub::new(&server.addr);
        // A hundred calls in a row, since one may be lucky.
        eventually("calls take their usual time", || (0..100).all(|_| call(&client) < usual));
        let recovery = end.elapsed();
        over.store(true, Ordering::Relaxed);
        let mut times = kept.join().unwrap();
        times.extend(anew.join().unwrap());
        (times, recovery)
    });
    times.sort();
    let seen =
        Seen { times, recovery, rss_mib: server.rss_mib(), peak_rss_mib: server.peak_rss_mib() };
    println!("{name}: {seen}");
    assert!(seen.peak_rss_mib < MOST_MIB, "{name}: {seen}");
    seen
}

fn calls(over: &AtomicBool, call: impl Fn() -> Duration) -> Vec<Duration> {
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        times.push(call());
        // A client with other things to do: what it takes is not to hide what the attack takes.
        thread::sleep(Duration::from_millis(2));
    }
    times
}

fn call(client: &Stub) -> Duration {
    let start = Instant::now();
    client
        .get_summary(&SummaryRequest::new(), CallOption::default().timeout(DEADLINE))
        .expect("no call of a well-behaved client fails");
    start.elapsed()
}
