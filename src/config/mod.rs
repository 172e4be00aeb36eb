//! Every setting and limit of the server, with its unit in its name. (The table of them is in `settings.rs`.)

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Violation, Violations};
use crate::peer::Share;

mod settings;

pub use settings::Config;
#[doc(hidden)]
pub use settings::{GROUPS, SETTINGS};

/// What a reader may know of a setting without reading this file: for the command line.
#[doc(hidden)]
pub struct Setting {
    /// The field's name; the flag is `--name-with-dashes`, the variable `BILLSTREAM_NAME`.
    pub name: &'static str,
    /// The name of its [`Group`].
    pub group: &'static str,
    /// The field's documentation.
    pub doc: &'static str,
    /// The values that work; the others are refused.
    pub range: Range,
    /// It is one of those that `--help` shows; `--help-all` shows every one.
    pub is_often_needed: bool,
}

/// Settings that belong together: a heading of the help, and a table of the file.
#[doc(hidden)]
pub struct Group {
    /// The name of the table.
    pub name: &'static str,
    /// The heading.
    pub title: &'static str,
}

/// The values that a setting takes.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Whole numbers, from the first to the second.
    Numbers(u64, u64),
    /// Text of this kind. Whether it is, its type says, or the start of the server.
    Text(&'static str),
    /// A list of texts of this kind, which may be one text with commas between.
    List(&'static str),
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Numbers(min, max) => write!(f, "{min} to {max}"),
            Range::Text(kind) | Range::List(kind) => f.write_str(kind),
        }
    }
}

impl Config {
    /// The largest request that names a filter in bytes: it is a message too.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.max_request_bytes.min(self.max_message_bytes)
    }

    /// Database connections that read: one for each thread that does.
    pub(crate) fn reader_connections(&self) -> usize {
        self.cq_threads + self.unary_workers + self.export_workers + self.max_backups
    }

    /// Where temporary files are.
    pub(crate) fn spool_dir(&self) -> &Path {
        let beside = self.db.parent().filter(|dir| !dir.as_os_str().is_empty());
        match self.spool_dir.as_os_str().is_empty() {
            false => &self.spool_dir,
            true => beside.unwrap_or(Path::new(".")),
        }
    }

    /// How much of a limit one peer may hold.
    pub(crate) fn share(&self) -> Share {
        let (host_percent, connection_percent) =
            (self.host_share_percent, self.connection_share_percent);
        Share { host_percent, connection_percent }
    }

    /// Refuses a configuration that cannot work, naming each setting, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let out_of_range =
            settings::numbers(self).into_iter().filter_map(|(name, value, min, max)| {
                let range = Range::Numbers(min, max);
                let is_in = (min..=max).contains(&value);
                (!is_in).then(|| Violation::new(name, format!("{value} is not in {range}")))
            });
        let violations: Violations =
            out_of_range.chain(self.unusable_spool_dir()).chain(self.missing_for_tls()).collect();
        match violations.count() {
            0 => Ok(()),
            _ => Err(Error::Invalid(violations)),
        }
    }

    /// Where it is the directory of the database, opening that says whether it can be used.
    fn unusable_spool_dir(&self) -> Option<Violation> {
        let dir = &self.spool_dir;
        let is_given = !dir.as_os_str().is_empty();
        let error = is_given.then(|| tempfile::tempfile_in(dir).err())??;
        let why = format!("no file can be made in {}: {error}", dir.display());
        Some(Violation::new("spool_dir", why))
    }

    /// Of the settings of TLS each needs the one before it; the key and the certificate need each other.
    fn missing_for_tls(&self) -> Option<Violation> {
        let [cert, key, client_ca] = [&self.tls_cert, &self.tls_key, &self.tls_client_ca]
            .map(|path| !path.as_os_str().is_empty());
        let needs = |name: &str, other: &str| Some(Violation::new(name, format!("needs {other}")));
        match (cert, key, client_ca) {
            (true, false, _) => needs("tls_cert", "tls_key"),
            (false, true, _) => needs("tls_key", "tls_cert"),
            (false, _, true) => needs("tls_client_ca", "tls_cert and tls_key"),
            (_, _, false) if !self.tls_allowed_clients.is_empty() => {
                needs("tls_allowed_clients", "tls_client_ca")
            }
            _ => None,
        }
    }

    /// The largest InvoiceBatch of a client that is quick, in bytes of rows. Its size costs nothing where
    /// nothing waits, and saves wakes and writes: with two chunks a batch export has 1.08 times the rows a
    /// second of one, and with three 1.15 times (`load ADDR export --batched` of benches/compare).
    pub(crate) fn quick_batch_bytes(&self) -> usize {
        2 * self.export_chunk_bytes
    }

    /// The most bytes that one export holds outside gRPC, however slow its client: the chunks in
    /// its channel, the one being sent and the one being scanned, each with a row beyond its end.
    pub fn export_memory_bytes(&self) -> usize {
        (self.export_queue_chunks + 2) * (self.quick_batch_bytes() + MAX_ROW_BYTES)
    }

    /// The most bytes that all streams hold outside gRPC: [`Config::export_memory_bytes`] for each
    /// export, `max_answer_bytes` and a page, eight chunks for each thread that scans ahead, `upload_memory_bytes` and
    /// one message for each upload, `reconcile_memory_bytes`, and for each reconcile stream one message as it came and
    /// as it is taken apart, a part of one, and the acknowledgements of one. A backup has some chunks, and SQLite's
    /// cache of the copy.
    pub fn streams_memory_bytes(&self) -> usize {
        let event_bytes = EVENT_BYTES + MAX_ACK_BYTES;
        let reconcile =
            2 * self.max_message_bytes + self.max_batch_rows * event_bytes + RECONCILE_PART_BYTES;
        self.max_exports * self.export_memory_bytes()
            + self.max_answer_bytes
            + self.max_page_size * MAX_ROW_BYTES
            + self.export_workers * BLOCK_CHUNKS * (self.quick_batch_bytes() + MAX_ROW_BYTES)
            + self.max_uploads * (self.upload_memory_bytes + self.max_message_bytes)
            + self.reconcile_memory_bytes
            + self.max_reconciles * reconcile
            + self.max_backups
                * (BACKUP_CACHE_BYTES + (BACKUP_QUEUE_CHUNKS + 2) * BACKUP_CHUNK_BYTES)
    }
}

/// The chunks that an idle thread scans ahead for an export: enough that handing them over costs little.
pub(crate) const BLOCK_CHUNKS: usize = 8;

/// The data in a message of a backup: enough that what a message costs is nothing.
pub(crate) const BACKUP_CHUNK_BYTES: usize = 64 << 10;
/// Messages of a backup that may wait for the client.
pub(crate) const BACKUP_QUEUE_CHUNKS: usize = 2;
/// What SQLite has by default.
const BACKUP_CACHE_BYTES: usize = 2 << 20;

/// The largest invoice in bytes: two ids, a memo, and numbers.
const MAX_ROW_BYTES: usize = 2 * 128 + 1024 + 128;
/// What an event and its acknowledgement take of memory beside their text, in bytes.
pub(crate) const EVENT_BYTES: usize = 320;
/// Bytes of events that every reconcile stream may hold, whatever the others hold.
pub(crate) const RECONCILE_PART_BYTES: usize = 64 << 10;
/// The largest acknowledgement in bytes: an id, and a message that quotes 64 bytes with escapes.
const MAX_ACK_BYTES: usize = 128 + 768;

/// A list of texts, which may be written as one with commas.
mod list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize, Serialize)]
    #[serde(
        untagged,
        expecting = "expected a text, with commas between several, or a list of texts"
    )]
    enum Texts {
        Text(String),
        List(Vec<String>),
    }

    pub fn serialize<S: Serializer>(
        list: &[String],
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        match list {
            [one] if !one.contains(',') => Texts::Text(one.clone()),
            list => Texts::List(list.to_vec()),
        }
        .serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> std::result::Result<Vec<String>, D::Error> {
        Ok(match Texts::deserialize(from)? {
            Texts::Text(text) => {
                let all = text.split(',').map(str::trim).filter(|one| !one.is_empty());
                all.map(str::to_owned).collect()
            }
            Texts::List(list) => list,
        })
    }
}

/// When a commit returns: SQLite's `synchronous` pragma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// After an fsync: nothing acknowledged is lost when the power fails.
    Full,
    /// Once the system has it: nothing acknowledged is lost when the process is killed.
    Normal,
}

/// How a line of the program's log is written. (Hidden: a library has the log of its program.)
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    Text,
    /// A JSON object a line.
    Json,
}
