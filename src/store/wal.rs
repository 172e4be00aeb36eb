//! The discipline of the write-ahead log. SQLite copies it into the database by itself, from
//! `checkpoint_bytes` on, but can begin it anew only in a moment without readers in it. Under long scans
//! that moment must be made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::scan::WalPressure;

/// How long to wait for readers to leave the log. Scans leave it within a chunk, so only a reader
/// in another process takes this long.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1000);

pub struct Wal {
    file: PathBuf,
    limit_bytes: u64,
    busy_timeout: Duration,
    /// The size at which to try next: past the limit it rises after each try that failed.
    next_bytes: u64,
    metrics: Arc<Metrics>,
    pressure: WalPressure,
}

impl Wal {
    pub fn new(db: &Path, config: &Config, metrics: Arc<Metrics>, pressure: WalPressure) -> Wal {
        let mut file = db.as_os_str().to_owned();
        file.push("-wal");
        Wal {
            file: file.into(),
            limit_bytes: config.wal_limit_bytes,
            busy_timeout: Duration::from_millis(config.busy_timeout_ms),
            next_bytes: config.wal_limit_bytes,
            metrics,
            pressure,
        }
    }

    /// Empties the log when it has reached its limit. To be called after each commit.
    pub fn limit(&mut self, conn: &Connection) {
        let size = self.measure();
        if size < self.next_bytes {
            return;
        }
        self.pressure.set(true);
        let emptied = self.truncate(conn, LEAVE_TIMEOUT);
        self.pressure.set(false);
        if emptied {
            self.metrics.wal_truncations.add(1);
            self.next_bytes = self.limit_bytes;
        } else {
            self.next_bytes = size + self.limit_bytes;
            log::warn!("another process reads the database: its log has {size} bytes");
        }
        self.measure();
    }

    /// Leaves everything in the database file.
    pub fn close(&self, conn: &Connection) {
        if !self.truncate(conn, LEAVE_TIMEOUT) {
            log::info!("another process reads the database: its log is left as it is");
        }
    }

    fn measure(&self) -> u64 {
        let size = std::fs::metadata(&self.file).map_or(0, |file| file.len());
        self.metrics.wal_bytes.set(size as i64);
        size
    }

    /// Whether the whole log was copied and cut to nothing.
    fn truncate(&self, conn: &Connection, timeout: Duration) -> bool {
        let checkpoint = || -> rusqlite::Result<bool> {
            conn.busy_timeout(timeout)?;
            let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
            let is_busy: i64 = conn.query_row(checkpoint, [], |row| row.get(0))?;
            conn.busy_timeout(self.busy_timeout)?;
            Ok(is_busy == 0)
        };
        checkpoint().unwrap_or_else(|error| {
            log::warn!("a checkpoint failed: {error}");
            false
        })
    }
}
