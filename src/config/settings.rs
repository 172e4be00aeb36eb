//! The settings as one table.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Group, LogFormat, Range, Setting, Synchronous};

/// Defines [`Config`], its defaults, its list of settings and their ranges from one table: groups, each a
/// table of the file, with settings of unique names. A setting is `NAME: TYPE = DEFAULT` and what it takes:
/// `in MIN..=MAX` for a number, `is "KIND"` for one value, `each "KIND"` for a list. With `in help often` it
/// stands in `--help`, and not only in `--help-all`. The empty text or path is how none is given.
macro_rules! settings {
    (@yes $word:ident) => { true };
    ($(#[doc = $title:literal] $group:ident { $(
        $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr
        $(, in $min:literal..=$max:literal)? $(, is $kind:literal)? $(, each $item:literal)?
        $(, with $serde:literal)? $(, in help $often:ident)?;
    )+ })+) => {
        /// The configuration of a server. Each limit says what happens when it is reached.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $($($(#[doc = $doc])+ $(#[serde(with = $serde)])? pub $name: $type,)+)+
        }

        impl Default for Config {
            fn default() -> Config {
                Config { $($($name: $default,)+)+ }
            }
        }

        /// The groups of [`SETTINGS`], in their order.
        #[doc(hidden)]
        pub const GROUPS: &[Group] = &[$(Group { name: stringify!($group), title: $title.trim_ascii() }),+];

        /// The settings of [`Config`], in its order: for the command line and the docs.
        #[doc(hidden)]
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: stringify!($name),
            group: stringify!($group),
            doc: concat!($($doc, "\n"),+),
            range: $(Range::Numbers($min, $max))? $(Range::Text($kind))? $(Range::List($item))?,
            is_often_needed: [$(settings!(@yes $often),)? false][0],
        },)+)+];

        /// Each setting that is a number, with its value and its range.
        pub(super) fn numbers(config: &Config) -> Vec<(&'static str, u64, u64, u64)> {
            vec![$($($((stringify!($name), config.$name as u64, $min, $max),)?)+)+]
        }
    };
}

settings! {
    /// Files and addresses
    server {
        /// The database file; created when it does not exist.
        db: PathBuf = PathBuf::from("billstream.db"), is "a path", in help often;
        /// What to listen on: HOST:PORT, where port 0 takes a free one, or unix:PATH; several of them with
        /// commas between, or as a list. The socket file of a server that is gone is replaced.
        listen: Vec<String> = vec!["127.0.0.1:50051".to_owned()], each "HOST:PORT or unix:PATH", with "super::list", in help often;
        /// Where the operator's HTTP listens: HOST:PORT, where port 0 takes a free one. It has the metrics for
        /// Prometheus, liveness and readiness, and what the server is doing now; it changes nothing. It is plain
        /// HTTP: elsewhere than on loopback it needs `tokens`, and a caller the right `admin`. Empty: nowhere.
        admin_listen: String = String::new(), is "HOST:PORT, or nothing", in help often;
    }

    /// TLS, and who may call
    tls {
        /// The server's certificate and those between it and its authority, PEM; together with `tls_key` it has
        /// every HOST:PORT speak TLS and nothing else (a unix: socket is for those who may open its file). The
        /// files of TLS are looked at each second and taken when they have changed; a bad new one is not.
        tls_cert: PathBuf = PathBuf::new(), is "a PEM file, or nothing", in help often;
        /// The key of `tls_cert`, PEM, not encrypted.
        tls_key: PathBuf = PathBuf::new(), is "a PEM file, or nothing", in help often;
        /// The authorities of clients, PEM: with it a client needs a certificate that one of them has signed.
        tls_client_ca: PathBuf = PathBuf::new(), is "a PEM file, or nothing", in help often;
        /// The clients that may call, of those that `tls_client_ca` vouches for: each a name of a certificate,
        /// which is a subject alternative name (DNS, URI, e-mail, IP) or the common name, letter by letter;
        /// several with commas between, or as a list. Others get PERMISSION_DENIED. Nothing: all may.
        tls_allowed_clients: Vec<String> = Vec::new(), each "a name of a certificate", with "super::list";
        /// The file of the tokens with which calls are made: a line each, `NAME RIGHTS sha256:HEX [expires=TIME]`,
        /// as `billstream token new` writes it. It is looked at each second and taken when it has changed, unless
        /// it is bad. Nothing: calls need no token.
        tokens: PathBuf = PathBuf::new(), is "a file, or nothing", in help often;
        /// Serves on addresses that other machines reach, although everyone there can read and call, since there
        /// is no TLS. Without this such an address is refused at the start.
        insecure_public: bool = false, is "true or false";
    }

    /// Connections and messages
    grpc {
        /// Threads that move bytes for gRPC: by default half as many as there are cores, the rest being for the
        /// database and for clients on the same machine. None of them waits for a lock or a queue; each has a
        /// database connection for the small reads of `inline_rows`. All calls of a connection are served by one.
        cq_threads: usize = half_the_cores(), in 1..=128;
        /// Streams of grpc.health.v1 that may be open, and of server reflection as many; a further one is
        /// RESOURCE_EXHAUSTED. A connection may have a sixteenth of them, but one at least.
        max_service_streams: usize = 1024, in 1..=100_000;
        /// Whether clients may ask by server reflection what the server serves: tools such as grpcurl then need no
        /// proto file.
        reflection: bool = true, is "true or false";
        /// What gRPC may hold for all peers together in bytes: their connections, calls, and messages on the way.
        /// At the limit it closes idle connections and takes no new ones, and ends calls with RESOURCE_EXHAUSTED.
        grpc_memory_bytes: usize = 256 << 20, in 16_777_216..=1_099_511_627_776;
        /// The largest request message in bytes; a larger one is RESOURCE_EXHAUSTED.
        max_message_bytes: usize = 4 << 20, in 4_096..=1_073_741_824, in help often;
        /// The most rows in a message of BulkCreateBatches or ReconcileBatches; one with more is
        /// RESOURCE_EXHAUSTED. (So many take some milliseconds of a thread of `cq_threads`, and the longest
        /// acknowledgements of so many events fit in the 4 MiB that most clients take as a message.)
        max_batch_rows: usize = 4_096, in 1..=65_536;
        /// The largest request of GetSummary, ListInvoices, GetInvoice or an export in bytes, with which a client
        /// names a filter; a larger one is RESOURCE_EXHAUSTED.
        max_request_bytes: usize = 64 << 10, in 4_096..=1_048_576;
        /// Streams one connection may have open; a further one is RESOURCE_EXHAUSTED, with RetryInfo.
        max_streams_per_connection: usize = 1024, in 1..=100_000;
        /// Streams that one host may reset in a second, on the average of four, over all its connections; past it
        /// they end with ENHANCE_YOUR_CALM, which its calls see as UNAVAILABLE, and it cannot connect for a second.
        /// Only with the C core that `make serve` builds: another has no such limit.
        max_resets_per_second: usize = 400, in 1..=1_000_000;
        /// The most metadata of a call in bytes, with 32 for each entry; a call with more is RESOURCE_EXHAUSTED.
        max_metadata_bytes: usize = 8 << 10, in 2_048..=1_048_576;
        /// How long a connection may be silent before it is pinged, in milliseconds: it finds clients that went
        /// away without a word.
        keepalive_time_ms: u64 = 60_000, in 1_000..=86_400_000;
        /// How long the answer to that ping may take, in milliseconds; then the connection is closed, and its
        /// calls end as if the client had cancelled them.
        keepalive_timeout_ms: u64 = 20_000, in 1_000..=86_400_000;
        /// The shortest time between two pings of a client on a connection that carries nothing else, in
        /// milliseconds. The third that comes sooner closes the connection with ENHANCE_YOUR_CALM
        /// (`too_many_pings`), and its calls are UNAVAILABLE.
        min_ping_interval_ms: u64 = 10_000, in 0..=86_400_000;
        /// The age at which a connection takes no more calls, in milliseconds, give or take a tenth: its client
        /// connects anew for the next, which is how a load balancer gets to share them out again. Calls that
        /// the client sends at that moment may be UNAVAILABLE. 0: none.
        max_connection_age_ms: u64 = 0, in 0..=2_000_000_000;
        /// How long the calls of a connection of `max_connection_age_ms` may still take, in milliseconds; then
        /// it is closed, and they are UNAVAILABLE. 0: as long as they do.
        max_connection_age_grace_ms: u64 = 0, in 0..=2_000_000_000;
        /// The longest that a connection may be without a call, in milliseconds; then it is closed. A call that
        /// the client sends at that moment may be UNAVAILABLE. 0: for ever.
        max_connection_idle_ms: u64 = 0, in 0..=2_000_000_000;
    }

    /// Calls of every kind
    calls {
        /// The most of any limit's places that one host may hold while no other holds any, in percent: of
        /// exports, uploads, Reconcile streams, queued unary calls, and threads for long unary queries. Of
        /// several as greedy as that each gets less, so that something stays free; past it RESOURCE_EXHAUSTED,
        /// with RetryInfo. 100: no share, as behind a proxy that is the only host.
        host_share_percent: usize = 80, in 1..=100;
        /// The most of its host's part that one connection may hold while no other of the host holds any, in
        /// percent; past it RESOURCE_EXHAUSTED, with RetryInfo. 100: no share, as behind a proxy with one
        /// connection.
        connection_share_percent: usize = 60, in 1..=100;
        /// The longest that a call of any rpc may wait for its first message, in milliseconds; then it is
        /// DEADLINE_EXCEEDED. Until then it holds no place of any limit.
        first_message_timeout_ms: u64 = 60_000, in 1..=86_400_000;
        /// The longest a client may take nothing, or of an export fewer than 16 messages, in milliseconds; then
        /// its stream is DEADLINE_EXCEEDED.
        stall_timeout_ms: u64 = 300_000, in 1..=86_400_000;
        /// The longest a client may send nothing, in milliseconds; then its stream is DEADLINE_EXCEEDED.
        idle_timeout_ms: u64 = 300_000, in 1..=86_400_000;
        /// The longest life of any stream in milliseconds; then it is DEADLINE_EXCEEDED.
        max_stream_age_ms: u64 = 86_400_000, in 1..=31_536_000_000;
        /// The delay in milliseconds that RetryInfo asks for.
        retry_delay_ms: u64 = 200, in 0..=3_600_000;
    }

    /// GetSummary, ListInvoices and GetInvoice
    queries {
        /// Threads for GetSummary, ListInvoices and GetInvoice, each with a database connection.
        unary_workers: usize = 2, in 1..=128;
        /// Unary calls that may wait for a thread; a further one is RESOURCE_EXHAUSTED, with RetryInfo.
        max_queued_unary: usize = 1024, in 1..=100_000;
        /// The largest page in invoices that is read on a thread of `cq_threads` while no other unary call is
        /// under way, which takes less time than handing it to another thread, or while long queries or a full
        /// queue would keep it waiting; as totals without dates always are. 0: only the totals.
        inline_rows: usize = 100, in 0..=10_000;
        /// The longest a unary query may take, in milliseconds, with its wait for a thread; then it is
        /// DEADLINE_EXCEEDED.
        unary_timeout_ms: u64 = 30_000, in 0..=86_400_000, in help often;
        /// The most invoices on a page of ListInvoices; a larger page_size gives this many. The same of events and
        /// the max_events of GetInvoice.
        max_page_size: usize = 1000, in 1..=100_000;
        /// Bytes of large pages (16 KiB or more) that may wait for their clients, all together; a further one is
        /// RESOURCE_EXHAUSTED, with RetryInfo.
        max_answer_bytes: usize = 64 << 20, in 65_536..=68_719_476_736;
        /// Invoices that are read for a page of ListInvoices, whether they match or not, in steps of 1,024; then
        /// the page ends early, with the token of the next. It ends so after half of `unary_timeout_ms` too.
        page_scan_rows: usize = 50_000, in 1..=1_000_000_000;
    }

    /// Exports
    exports {
        /// Threads that scan for exports, each with a database connection. More exports than threads
        /// take turns; an idle one helps the scan of an export whose client is quick.
        export_workers: usize = 2, in 1..=128;
        /// Exports that may be open; a further one is RESOURCE_EXHAUSTED, with RetryInfo.
        max_exports: usize = 4096, in 1..=100_000, in help often;
        /// The first chunk of an export in bytes of rows; each further one may be twice the one before.
        export_first_chunk_bytes: usize = 1 << 10, in 1..=1_048_576;
        /// The largest chunk of an export in bytes of rows, and so about the largest InvoiceBatch; that of a
        /// quick client may be twice as large. It is two and a half HTTP/2 frames, so that none of them is small,
        /// and below the 64 KiB at which gRPC writes by itself.
        export_chunk_bytes: usize = 40 << 10, in 256..=1_048_576;
        /// Chunks that may wait for the client; when they do, the scan waits, and then parks.
        export_queue_chunks: usize = 1, in 1..=1_024;
        /// How hard the batches of an export are compressed for a client that asks for it with the header
        /// `billstream-compression: gzip`, from 1 (quick) to 9 (small); 0: for nobody. It is work of a thread of
        /// `cq_threads`, some milliseconds for each batch of a quick client: for networks that are slower than
        /// that.
        export_compression_level: usize = 0, in 0..=9;
        /// The longest a scan waits for its client with its thread and connection, in milliseconds;
        /// then it parks. It parks at once when another export waits for the thread.
        park_after_ms: u64 = 20, in 0..=60_000;
        /// The longest a scan keeps its thread while another export waits for one, in milliseconds.
        export_turn_ms: u64 = 50, in 0..=60_000;
    }

    /// Uploads
    uploads {
        /// Uploads that may be open; a further one is RESOURCE_EXHAUSTED, with RetryInfo.
        max_uploads: usize = 256, in 1..=100_000, in help often;
        /// The most invoices in an upload; past it RESOURCE_EXHAUSTED, and nothing is created.
        max_upload_rows: usize = 1_000_000, in 1..=1_000_000_000;
        /// The most bytes of request messages in an upload; past it RESOURCE_EXHAUSTED.
        max_upload_bytes: usize = 256 << 20, in 1..=1_099_511_627_776, in help often;
        /// Bytes of an upload that are kept in memory; the rest waits in a temporary file.
        upload_memory_bytes: usize = 256 << 10, in 0..=1_073_741_824;
        /// Where the temporary files of uploads and backups are; empty: the directory of the database.
        spool_dir: PathBuf = PathBuf::new(), is "a directory, or nothing";
    }

    /// Backups over the wire
    backups {
        /// Backups over the wire that may be open, each with a thread and, while it is copied, a database
        /// connection; a further one is RESOURCE_EXHAUSTED, with RetryInfo. Each waits for its client in a
        /// temporary file of the size of the database.
        max_backups: usize = 1, in 1..=16;
    }

    /// Reconcile streams
    reconcile {
        /// Reconcile streams that may be open; a further one is RESOURCE_EXHAUSTED, with RetryInfo.
        max_reconciles: usize = 1024, in 1..=100_000;
        /// Bytes of a stream's events, with what is kept beside each, that may wait to be applied, be applied, or
        /// wait for their acknowledgements to be sent; then the stream is not read.
        reconcile_queue_bytes: usize = 8 << 20, in 1..=1_073_741_824;
        /// Bytes that the events of all streams take so. At the limit a stream waits until nothing is left of its
        /// own before, and goes on with some 64 KiB, or one message with `validate_only`.
        reconcile_memory_bytes: usize = 256 << 20, in 1..=68_719_476_736;
        /// The most events of a stream in one batch.
        reconcile_batch_events: usize = 16_384, in 1..=65_536;
    }

    /// The database
    sqlite {
        /// When a commit returns: `full` (after an fsync; nothing acknowledged is lost when the power
        /// fails) or `normal` (nothing acknowledged is lost when the process is killed).
        synchronous: Synchronous = Synchronous::Full, is "full or normal", in help often;
        /// Whether the file of an older version is kept, as `FILE.version-N`, when it is brought to this one: older
        /// programs refuse it from then on. It takes its size of the disk; remove it when nothing is to go back.
        upgrade_copy: bool = true, is "true or false";
        /// The longest to wait for another process that has the database locked, in milliseconds; then
        /// UNAVAILABLE.
        busy_timeout_ms: u64 = 5_000, in 0..=86_400_000;
        /// The most invoices or events in one commit of several uploads or batches of events; further ones go
        /// into the next, and a larger upload is alone in its own. (Some 50 milliseconds of work: more gains
        /// nothing, and an upload whose client leaves may make the others of its commit run again, once.)
        group_commit_rows: usize = 4096, in 1..=1_000_000;
        /// The least room on the disk of the database in bytes with which the server calls itself healthy. Below it
        /// `grpc.health.v1` says NOT_SERVING; writes go on until the disk is full.
        min_free_bytes: u64 = 4 << 20, in 0..=1_099_511_627_776;
        /// Page cache of each connection that reads in bytes.
        cache_bytes: usize = 8 << 20, in 65_536..=68_719_476_736;
        /// Page cache of the one connection that writes in bytes. A transaction that changes more is written to
        /// the log in parts, some of them more than once.
        writer_cache_bytes: usize = 32 << 20, in 65_536..=68_719_476_736;
        /// The size of the write-ahead log in bytes from which a commit copies it into the database. 0: never, and
        /// the log is not emptied either, also not at the end: Litestream does both, and must see all of the log.
        checkpoint_bytes: u64 = 32 << 20, in 0..=68_719_476_736;
        /// The size of the write-ahead log in bytes at which scans are asked to begin again from their
        /// cursor, so that it can be emptied. (Where `checkpoint_bytes` is 0, at which the log of the server says
        /// so.)
        wal_limit_bytes: u64 = 64 << 20, in 65_536..=68_719_476_736;
    }

    /// The log
    log {
        /// Lines of `text` or of `json`: an object a line, with the same fields. (Of the program: a library has
        /// the log of its program.) RUST_LOG says from which level on, and of what.
        log_format: LogFormat = LogFormat::Text, is "text or json";
        /// A call that takes longer, without what it waits for its client, is told of at warn, with what it
        /// waited for, in milliseconds. 0: none is.
        slow_call_ms: u64 = 1_000, in 0..=86_400_000;
    }

    /// Stopping
    shutdown {
        /// How long calls still come after a stop was asked for, in milliseconds, while `grpc.health.v1` and
        /// `/readyz` say NOT_SERVING already: for who chooses servers by their health to choose others. It is
        /// part of `drain_timeout_ms`. 0: none still come.
        lame_duck_ms: u64 = 0, in 0..=3_600_000;
        /// The longest that open calls may go on after a stop was asked for, in milliseconds; then they
        /// are cancelled.
        drain_timeout_ms: u64 = 10_000, in 0..=3_600_000, in help often;
    }
}

fn half_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}
