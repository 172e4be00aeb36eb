//! Who calls, and how much of what all need it may take.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A host and one of its connections. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    host: Arc<str>,
    connection: Arc<str>,
}

impl Peer {
    /// From gRPC's name of a peer: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000` or the same with
    /// brackets. What is neither, such as `unix:`, is a host with one connection.
    /// Who has one address of IPv6 has a network of them, and is known by it: `2001:db8::/64`.
    pub fn new(address: &str) -> Peer {
        let host = match address.strip_prefix("ipv4:").and_then(|rest| rest.rsplit_once(':')) {
            Some((ip, _port)) => ip.into(),
            None => ipv6(address).map_or_else(|| address.into(), host_of_ipv6),
        };
        Peer { host, connection: address.into() }
    }

    /// Who is known by an `identity` has one part, from whatever hosts it comes. On a connection that others have
    /// too, as through a proxy, it is apart from them.
    pub fn known(identity: &str, address: &str) -> Peer {
        let host = format!("identity:{identity}");
        Peer { connection: format!("{address} {host}").into(), host: host.into() }
    }

    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Its name among the connections of all hosts.
    pub fn connection(&self) -> &Arc<str> {
        &self.connection
    }
}

fn ipv6(address: &str) -> Option<Ipv6Addr> {
    let address = address.strip_prefix("ipv6:")?.replace("%5B", "[").replace("%5D", "]");
    // Behind a `%` is the interface of a link-local address.
    let (ip, _port) = address.strip_prefix('[')?.split_once("]:")?;
    ip.split('%').next()?.parse().ok()
}

fn host_of_ipv6(ip: Ipv6Addr) -> Arc<str> {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let network = Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64);
            format!("{network}/64").into()
        }
        one => one.to_string().into(),
    }
}

/// How much of a limit one peer may hold.
///
/// A host gets a place while it holds less than its share of what it holds and what is free; so it
/// never takes all, two that are as greedy get less each, and who holds nothing gets a place while
/// there is one. (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6,
/// 1998.) A connection shares the part of its host with the host's other connections in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The most of all places that the only host may hold, in percent.
    pub host_percent: usize,
    /// The most of its host's part that the only connection may hold, in percent.
    pub connection_percent: usize,
}

/// Why a peer gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// None is free.
    All,
    /// Its host has its share.
    Host,
    /// Its connection has its share.
    Connection,
}

impl Share {
    /// A peer may hold all there is.
    pub const ALL: Share = Share { host_percent: 100, connection_percent: 100 };

    /// Whether a peer gets one more of `free` places where its host and its connection hold so many.
    pub fn check(
        self,
        free: usize,
        host_holds: usize,
        connection_holds: usize,
    ) -> Result<(), Full> {
        if free == 0 {
            return Err(Full::All);
        }
        // In hundredths of a place, and then in hundredths of those: nothing is rounded to none.
        let of_host = left(self.host_percent, free as u128, host_holds as u128);
        if of_host == 0 {
            return Err(Full::Host);
        }
        // The last place of its host's part is for a connection that holds none.
        let is_last = connection_holds > 0 && of_host <= 100 && self.connection_percent < 100;
        match left(self.connection_percent, of_host, 100 * connection_holds as u128) {
            1.. if !is_last => Ok(()),
            _ => Err(Full::Connection),
        }
    }

    /// The most of `places` that a host may hold, at least 1.
    pub fn of_host(self, places: usize) -> usize {
        (places * self.host_percent / 100).max(1)
    }
}

/// By how much `percent` of what is held and what is free is more than what is held, in hundredths of the
/// unit of both. Over 0, one more may be taken.
fn left(percent: usize, free: u128, holds: u128) -> u128 {
    (percent as u128 * free).saturating_sub((100 - percent as u128) * holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_host_is_an_address_without_its_port() {
        let host = |address: &str| Peer::new(address).host().to_string();
        assert_eq!(host("ipv4:127.0.0.1:5000"), "127.0.0.1");
        assert_eq!(host("ipv6:%5B::1%5D:5000"), "::1");
        assert_eq!(host("ipv6:[::ffff:10.0.0.1]:5000"), "10.0.0.1");
        assert_eq!(host("ipv6:%5B2001:db8:1:2:3::4%5D:5000"), "2001:db8:1:2::/64");
        assert_eq!(host("ipv6:%5Bfe80::1%25eth0%5D:5000"), "fe80::/64");
        assert_eq!(host("unix:"), "unix:");
        assert_eq!(host("ipv6:nonsense"), "ipv6:nonsense");
    }

    /// Takes places in turn for the connections of hosts, until none gets one more.
    fn filled(share: Share, places: usize, connections: &[usize]) -> Vec<Vec<usize>> {
        let mut held: Vec<Vec<usize>> = connections.iter().map(|count| vec![0; *count]).collect();
        let mut goes_on = true;
        while std::mem::take(&mut goes_on) {
            for host in 0..held.len() {
                for connection in 0..held[host].len() {
                    let free = places - held.iter().flatten().sum::<usize>();
                    let host_holds = held[host].iter().sum();
                    if share.check(free, host_holds, held[host][connection]).is_ok() {
                        held[host][connection] += 1;
                        goes_on = true;
                    }
                }
            }
        }
        held
    }

    const SHARE: Share = Share { host_percent: 80, connection_percent: 60 };

    #[test]
    fn the_only_connection_gets_its_share_and_small_limits_are_of_use() {
        let most = |places| filled(SHARE, places, &[1])[0][0];
        assert_eq!([1, 2, 3, 4, 5, 8].map(most), [1, 1, 2, 2, 3, 4]);
        assert_eq!([256, 1024, 4096].map(most), [123, 492, 1967]);
        let all = |places| filled(Share::ALL, places, &[1])[0][0];
        assert_eq!([1, 2, 256].map(all), [1, 2, 256]);
    }

    /// One after the other, which is the worst order: each takes all it may before the next comes.
    #[test]
    fn greedy_connections_leave_a_place_to_one_of_their_host() {
        for places in 41..300 {
            let mut held = Vec::new();
            for _ in 0..4 {
                let sum: usize = held.iter().sum();
                let takes = |n: &usize| SHARE.check(places - sum - n, sum + n, *n).is_ok();
                held.push((0..).take_while(takes).count());
            }
            let sum = held.iter().sum::<usize>();
            assert_eq!(SHARE.check(places - sum, sum, 0), Ok(()), "{held:?} of {places}");
        }
    }

    #[test]
    fn many_connections_of_a_host_leave_places_to_others() {
        let connections = filled(SHARE, 256, &[32]);
        let held: usize = connections[0].iter().sum();
        assert!((190..=205).contains(&held), "{held} of 256");
        // To a new connection of that host, and several to another one.
        assert_eq!(SHARE.check(256 - held, held, 0), Ok(()));
        let other = (0..).take_while(|n| SHARE.check(256 - held - n, *n, *n).is_ok()).count();
        assert!(other >= 20, "{other} places for another host");
    }

    proptest! {
        /// However many are greedy, who holds nothing gets a place while one is free and, where the
        /// limit is not small, one is free.
        #[test]
        fn who_holds_nothing_gets_a_place(
            places in 1..600usize,
            host_percent in 1..=100usize,
            connection_percent in 1..=100usize,
            connections in prop::collection::vec(1..6usize, 1..6),
        ) {
            let share = Share { host_percent, connection_percent };
            let held: usize = filled(share, places, &connections).iter().flatten().sum();
            prop_assert!(held <= places && held > 0);
            prop_assert!(held == places || share.check(places - held, 0, 0).is_ok());
            // Nobody takes a place while holding more than the share of what is free, and what is free
            // shrinks by a place for each connection from one turn to the next.
            let round = 1 + connections.iter().sum::<usize>();
            let overshoot = connections.len() * (host_percent * round + 100 - host_percent);
            let is_small = places * (100 - host_percent) <= overshoot;
            prop_assert!(is_small || held < places);
        }
    }
}
