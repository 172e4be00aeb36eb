//! The engine: the only module that knows SQLite.
//!
//! | module | what it is |
//! |---|---|
//! | [`file`](mod@file) | one file with one name and one server |
//! | [`open`] | is the file ours; pragmas, migrations |
//! | [`sql`] | the statements of `sql/` |
//! | [`read`] | the pool of read-only connections, and pages |
//! | [`summary`] | counts and sums |
//! | [`bulk`], [`reconcile`] | what an upload and a batch of payments write |
//! | [`totals`] | the kept totals |
//! | [`wal`] | the write-ahead log: its limit, and when it is copied |
//! | [`guard`], [`wal_file`] | is the file under the server as it was left; the log's format |
//! | [`maintain`], [`restore`](mod@restore) | check, backup and restore |

pub mod bulk;
pub mod error;
pub mod file;
pub mod guard;
pub mod maintain;
pub mod open;
pub mod read;
pub mod reconcile;
pub mod restore;
pub mod sql;
pub mod summary;
pub mod totals;
pub mod wal;
pub mod wal_file;
