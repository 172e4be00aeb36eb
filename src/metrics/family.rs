//! Numbers with labels, of which there is a fixed set of values.

use std::fmt;
use std::marker::PhantomData;

use super::{Counter, Shown, Text};
use crate::error::Error;
use crate::method::Method;
use crate::status::Code;
use crate::stop::Reason;

/// What tells the numbers of a family from each other.
pub(crate) trait Label: Copy + 'static {
    /// How many there are.
    const COUNT: usize;
    /// Its place, below `COUNT`.
    fn place(self) -> usize;
    /// That of a place.
    fn at(place: usize) -> Self;
    /// As Prometheus writes it: `name="value"`.
    fn labels(self) -> String;
    /// Whether it is shown where nothing was counted.
    fn is_usual(self) -> bool {
        true
    }
}

/// A number for each value of a label.
pub(crate) struct Family<K, V = Counter> {
    values: Box<[V]>,
    key: PhantomData<K>,
}

impl<K: Label, V: Default> Default for Family<K, V> {
    fn default() -> Family<K, V> {
        Family { values: (0..K::COUNT).map(|_| V::default()).collect(), key: PhantomData }
    }
}

impl<K, V> fmt::Debug for Family<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("values", &self.values.len()).finish()
    }
}

impl<K: Label, V> Family<K, V> {
    /// The number of `key`.
    pub fn of(&self, key: K) -> &V {
        &self.values[key.place()]
    }

    /// Each with its label.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.values.iter().enumerate().map(|(place, value)| (K::at(place), value))
    }
}

impl<K: Label> Shown for Family<K> {
    fn show(&self, text: &mut Text) {
        text.total();
        for (key, counter) in self.iter() {
            text.line("", &key.labels(), counter.get());
        }
    }
}

impl Label for Method {
    const COUNT: usize = Method::ALL.len();

    fn place(self) -> usize {
        self as usize
    }

    fn at(place: usize) -> Method {
        Method::ALL[place]
    }

    /// As OpenTelemetry has it, with the name of the service.
    fn labels(self) -> String {
        format!("rpc_method=\"{}/{self}\"", self.service())
    }
}

impl Label for (Method, Code) {
    const COUNT: usize = Method::ALL.len() * Code::COUNT;

    fn place(self) -> usize {
        self.0 as usize * Code::COUNT + self.1 as usize
    }

    fn at(place: usize) -> (Method, Code) {
        (Method::at(place / Code::COUNT), Code::from_number((place % Code::COUNT) as i32))
    }

    fn labels(self) -> String {
        format!("{},rpc_response_status_code=\"{}\"", self.0.labels(), self.1)
    }

    /// Most codes never are.
    fn is_usual(self) -> bool {
        self.1 == Code::Ok
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $type:ident $label:literal: $($name:ident = $value:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $type {
            $($name,)+
        }

        impl $type {
            pub const ALL: &[($type, &str)] = &[$(($type::$name, $value)),+];
        }

        impl Label for $type {
            const COUNT: usize = $type::ALL.len();

            fn place(self) -> usize {
                self as usize
            }

            fn at(place: usize) -> $type {
                $type::ALL[place].0
            }

            fn labels(self) -> String {
                format!(concat!($label, "=\"{}\""), $type::ALL[self as usize].1)
            }
        }
    };
}

labels! {
    /// Why a read was given up.
    Interrupted "reason":
    ClientGone = "client_gone",
    Deadline = "deadline",
    Limit = "limit",
    Stopping = "stopping",
}

impl From<&Reason> for Interrupted {
    fn from(reason: &Reason) -> Interrupted {
        match reason {
            Reason::ClientGone => Interrupted::ClientGone,
            Reason::Deadline => Interrupted::Deadline,
            Reason::Limit(_) => Interrupted::Limit,
            Reason::Stopping => Interrupted::Stopping,
        }
    }
}

labels! {
    /// A setting at which calls are refused or ended.
    Limit "limit":
    Exports = "max_exports",
    Uploads = "max_uploads",
    Reconciles = "max_reconciles",
    Backups = "max_backups",
    StreamsPerConnection = "max_streams_per_connection",
    QueuedUnary = "max_queued_unary",
    AnswerBytes = "max_answer_bytes",
    RequestBytes = "max_request_bytes",
    BatchRows = "max_batch_rows",
    UploadRows = "max_upload_rows",
    UploadBytes = "max_upload_bytes",
    FirstMessageTimeout = "first_message_timeout_ms",
    IdleTimeout = "idle_timeout_ms",
    StallTimeout = "stall_timeout_ms",
    StreamAge = "max_stream_age_ms",
    UnaryTimeout = "unary_timeout_ms",
}

impl Limit {
    /// The one that `error` is for. Its message names it, for its reader; where it names a share too, after it.
    pub fn of(error: &Error) -> Option<Limit> {
        let (Error::Exhausted { message, .. } | Error::DeadlineExceeded(message)) = error else {
            return None;
        };
        let words = message.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        let named = |word| Limit::ALL.iter().find(|(_, name)| *name == word);
        words.filter_map(named).map(|(limit, _)| *limit).next()
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Limit> {
        Limit::ALL.iter().find(|(_, known)| *known == name).map(|(limit, _)| *limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn each_limit_is_a_setting() {
        for (limit, name) in Limit::ALL {
            assert!(SETTINGS.iter().any(|setting| setting.name == *name), "{limit:?}");
        }
    }

    #[test]
    fn a_place_has_one_label() {
        for place in 0..<(Method, Code)>::COUNT {
            assert_eq!(<(Method, Code)>::at(place).place(), place);
        }
    }
}
