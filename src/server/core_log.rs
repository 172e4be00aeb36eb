//! The lines of the gRPC C core, which has one log for the whole process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use log::{Level, Record};

use crate::calls::call::Seldom;
use crate::metrics::Counter;

/// The module that lines of the gRPC C core have in the `log` crate.
pub const CORE_LOG: &str = "grpcio::log_util";

/// Connections that spoke no gRPC, since the process began.
#[derive(Debug, Default)]
pub struct ForeignPeers {
    /// TLS, to a port without it.
    pub tls: Counter,
    /// HTTP/1.
    pub http1: Counter,
    /// Anything else.
    pub other: Counter,
    /// Whose TLS handshake failed: without a certificate, with one that is not trusted, or without TLS.
    pub handshake: Counter,
}

/// What is kept of all the lines.
#[derive(Default)]
struct Lines {
    foreign: ForeignPeers,
    /// For what a stranger can make the core say.
    seldom: Seldom,
    /// For its other lines, of which a stranger can cause most too.
    others: Seldom,
    /// Lines that were left out since the last one of them.
    left_out: AtomicU64,
}

fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(Lines::default)
}

/// Sends the lines of the gRPC C core to the `log` crate, in place of stderr. For the whole process, and after its
/// logger was set: the core speaks from the level on that `log` has then.
pub fn take_core_log() {
    grpcio::redirect_log();
}

/// Connections of the process that spoke no gRPC. They are counted where the program's logger asks
/// [`core_line`]; only the C core that `make build` builds tells of those that come without TLS.
pub fn foreign_peers() -> &'static ForeignPeers {
    &lines().foreign
}

/// For a logger: what it should say of a record that may be a line of the gRPC C core. `None` where that is
/// nothing: what a stranger can cause is said once a second at the most, with the number of those left out, and counted
/// in [`foreign_peers`].
///
/// ```
/// use billstream::server::{core_line, foreign_peers, take_core_log, ForeignPeers, CORE_LOG};
///
/// struct Logger;
///
/// impl log::Log for Logger {
///     fn enabled(&self, _: &log::Metadata<'_>) -> bool {
///         true
///     }
///
///     fn log(&self, record: &log::Record<'_>) {
///         let is_of_core = record.module_path() == Some(CORE_LOG);
///         if let Some((level, text)) = core_line(record) {
///             eprintln!("{level} {}{text}", if is_of_core { "gRPC: " } else { "" });
///         }
///     }
///
///     fn flush(&self) {}
/// }
///
/// log::set_logger(&Logger).unwrap();
/// log::set_max_level(log::LevelFilter::Info);
/// take_core_log();
/// let ForeignPeers { tls, http1, other, handshake } = foreign_peers();
/// assert_eq!(tls.get() + http1.get() + other.get() + handshake.get(), 0);
/// ```
pub fn core_line(record: &Record<'_>) -> Option<(Level, String)> {
    let text = record.args().to_string();
    if record.module_path() != Some(CORE_LOG) {
        return Some((record.level(), text));
    }
    let Lines { foreign, seldom, others, left_out } = lines();
    let (counter, text) = match stranger(&text) {
        Some((Stranger::Tls, peer)) => {
            (&foreign.tls, format!("{peer} speaks TLS to a port without it"))
        }
        Some((Stranger::Http1, peer)) => {
            (&foreign.http1, format!("{peer} speaks HTTP/1, not gRPC"))
        }
        Some((Stranger::Other, peer)) => (&foreign.other, format!("{peer} speaks no gRPC")),
        Some((Stranger::Handshake, why)) => {
            (&foreign.handshake, format!("a TLS handshake failed: {why}"))
        }
        // What the core calls information is for who looks for a fault of it.
        None if record.level() == Level::Info => return Some((Level::Debug, text)),
        None if others.is_time() => return Some((record.level(), text)),
        None => {
            left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
    };
    counter.add(1);
    if !seldom.is_time() {
        left_out.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    Some((
        Level::Warn,
        match left_out.swap(0, Ordering::Relaxed) {
            0 => text,
            n => format!("{text} ({n} others were left out)"),
        },
    ))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stranger {
    Tls,
    Http1,
    Other,
    Handshake,
}

/// Whether a line tells of a connection that is none of gRPC, with the peer, or why.
fn stranger(line: &str) -> Option<(Stranger, &str)> {
    if let Some(told) = line.strip_prefix("foreign peer ") {
        let (peer, what) = told.rsplit_once(": ")?;
        let kind = match what {
            "TLS" => Stranger::Tls,
            "HTTP/1" => Stranger::Http1,
            _ => Stranger::Other,
        };
        return Some((kind, peer));
    }
    let why = line.strip_prefix("Handshake failed with fatal error ")?;
    let reason = why.trim_end_matches('.').rsplit(':').next()?;
    Some((
        Stranger::Handshake,
        match reason {
            "HTTP_REQUEST" => "a client that speaks HTTP without TLS",
            "WRONG_VERSION_NUMBER" => "a client that speaks no TLS",
            reason => reason,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_known_by_their_lines() {
        let tls = Some((Stranger::Tls, "ipv4:127.0.0.1:5000"));
        assert_eq!(stranger("foreign peer ipv4:127.0.0.1:5000: TLS"), tls);
        let http = Some((Stranger::Http1, "ipv6:%5B::1%5D:7"));
        assert_eq!(stranger("foreign peer ipv6:%5B::1%5D:7: HTTP/1"), http);
        let line = "Handshake failed with fatal error SSL_ERROR_SSL: \
            error:1000009c:SSL routines:OPENSSL_internal:HTTP_REQUEST.";
        let why = "a client that speaks HTTP without TLS";
        assert_eq!(stranger(line), Some((Stranger::Handshake, why)));
        assert_eq!(stranger("accept4: Too many open files; trying again in a second"), None);
    }

    #[test]
    fn a_stranger_cannot_fill_the_log() {
        let say = |text: &str, module| {
            core_line(&Record::builder().args(format_args!("{text}")).module_path(module).build())
        };
        let said =
            (0..1_000).filter_map(|_| say("foreign peer ipv4:1.2.3.4:5: TLS", Some(CORE_LOG)));
        let said: Vec<_> = said.collect();
        assert!((1..=10).contains(&said.len()), "{said:?}");
        assert_eq!(said[0], (Level::Warn, "ipv4:1.2.3.4:5 speaks TLS to a port without it".into()));
        assert_eq!(foreign_peers().tls.get(), 1_000);
        // What others say is theirs.
        let ours = say("foreign peer ipv4:1.2.3.4:5: TLS", Some("app"));
        assert_eq!(ours, Some((Level::Info, "foreign peer ipv4:1.2.3.4:5: TLS".into())));
    }
}
