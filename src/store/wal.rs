//! The discipline of the write-ahead log: it is copied into the database from `checkpoint_bytes` on and when
//! the writer is idle, and begun anew. SQLite can do that only in a moment without readers in the log; under
//! long scans that moment must be made.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::Connection;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::store::file::DatabaseFile;
use crate::store::guard::{Fault, Guard, Index};
use crate::store::scan::WalPressure;
use crate::store::sql;
use crate::store::wal_file::State;

/// How long to wait for readers to leave the log. Scans leave it within a chunk, so only a reader
/// in another process takes this long.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1000);

pub struct Wal {
    guard: Guard,
    /// What was found for good; until the next start nothing more is written.
    damage: Option<Fault>,
    /// Whether a fault has been told of and lasts.
    is_faulty: bool,
    /// The state of the transaction that is open, where it numbers it anew.
    renewed: Option<State>,
    checkpoint_bytes: u64,
    limit_bytes: u64,
    busy_timeout: Duration,
    /// The size at which to copy next: past `checkpoint_bytes` it rises with each try that readers hindered.
    next_checkpoint_bytes: u64,
    /// The size at which to try to empty the log next.
    next_bytes: u64,
    metrics: Arc<Metrics>,
    pressure: WalPressure,
}

impl Wal {
    /// To be called when `conn` has read the database.
    pub fn new(
        (db, conn): (&DatabaseFile, &Connection),
        config: &Config,
        metrics: Arc<Metrics>,
        pressure: WalPressure,
    ) -> Result<Wal> {
        Ok(Wal {
            guard: Guard::new(db, conn)?,
            damage: None,
            is_faulty: false,
            renewed: None,
            checkpoint_bytes: config.checkpoint_bytes,
            limit_bytes: config.wal_limit_bytes,
            busy_timeout: Duration::from_millis(config.busy_timeout_ms),
            next_checkpoint_bytes: config.checkpoint_bytes,
            next_bytes: config.wal_limit_bytes,
            metrics,
            pressure,
        })
    }

    /// To be called in each transaction before it writes. Fails where the file under it is not what it was.
    pub fn begun(&mut self, conn: &Connection) -> Result<()> {
        self.renewed = None;
        let checked = self.check_begun();
        let index = self.judge(checked)?;
        // The first transaction of a log says which state of the file it continues.
        if index.frames == index.copied || Some(index.salts) != self.guard.marked {
            self.renewed = Some(renew(conn)?);
        }
        Ok(())
    }

    /// To be called after each commit, before it is acknowledged.
    pub fn committed(&mut self, conn: &Connection) -> Result<()> {
        let mut checked = self.guard.check_committed();
        if matches!(checked, Err(Fault::Damaged(_))) {
            // Another process may have written in between; with the lock there is none.
            let begun = conn.prepare_cached("BEGIN IMMEDIATE")?.execute([]);
            checked = self.guard.check_committed();
            begun.and_then(|_| conn.prepare_cached("ROLLBACK")?.execute([]))?;
        }
        let index = self.judge(checked)?;
        if let Some(state) = self.renewed.take() {
            self.guard.state = state;
            self.guard.marked = Some(index.salts);
        }
        Ok(())
    }

    /// Where SQLite has found the file malformed, nothing more is written to it.
    pub fn note(&mut self, error: &Error) {
        if let Error::Malformed(why) = error {
            let fault = Fault::Damaged(format!("the database file is malformed: {why}"));
            // OK to drop: the job has this error.
            drop(self.judge::<()>(Err(fault)));
        }
    }

    /// Empties the log when it has reached its limit, or copies it. To be called after each commit.
    pub fn limit(&mut self, conn: &Connection) {
        let size = self.measure();
        if self.is_faulty {
            return;
        }
        if size >= self.next_bytes {
            self.pressure.set(true);
            let emptied = self.checkpoint(conn, "TRUNCATE", LEAVE_TIMEOUT);
            self.pressure.set(false);
            if emptied {
                self.metrics.wal_truncations.add(1);
                self.next_bytes = self.limit_bytes;
            } else {
                self.next_bytes = size + self.limit_bytes;
                log::warn!("another process reads the database: its log has {size} bytes");
            }
            self.measure();
        } else if let Ok(index) = self.guard.index() {
            self.copy(conn, &index);
        }
    }

    /// Copies the log into the database from `checkpoint_bytes` on; the next commit begins it anew.
    fn copy(&mut self, conn: &Connection, index: &Index) {
        let size = index.log_bytes();
        if size < self.checkpoint_bytes {
            self.next_checkpoint_bytes = self.checkpoint_bytes;
        } else if size >= self.next_checkpoint_bytes {
            self.checkpoint(conn, "PASSIVE", Duration::ZERO);
            self.next_checkpoint_bytes = size + self.checkpoint_bytes / 4;
        }
    }

    /// To be called about once a second while there is nothing to write: leaves everything in the database
    /// file, so that a copy of it is worth something.
    pub fn idle(&mut self, conn: &Connection) {
        if self.look(conn) && self.measure() > 0 {
            self.checkpoint(conn, "TRUNCATE", Duration::ZERO);
            self.measure();
        }
    }

    /// Leaves everything in the database file, also in one that was moved.
    pub fn close(&mut self, conn: &Connection) {
        let is_well = self.look(conn);
        if self.damage.is_none() && !self.checkpoint(conn, "TRUNCATE", LEAVE_TIMEOUT) {
            log::info!("another process reads the database: its log is left as it is");
        }
        if !is_well {
            // SQLite would copy what is damaged, and delete the log that is at the path by now.
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            if let Err(error) = conn.set_db_config(keep, true) {
                log::error!("the log may be copied at the end: {error}");
            }
        }
    }

    /// Whether all is as it should be, seen in a transaction that writes nothing.
    fn look(&mut self, conn: &Connection) -> bool {
        let begun =
            self.with_wait(conn, Duration::ZERO, |conn| conn.execute_batch("BEGIN IMMEDIATE"));
        let checked = self.check_begun();
        if begun.is_ok() {
            if let Err(error) = conn.execute_batch("ROLLBACK") {
                log::error!("a rollback failed: {error}");
            }
        } else if matches!(checked, Err(Fault::Damaged(_))) && self.damage.is_none() {
            // Another process may be writing.
            return false;
        }
        self.judge(checked).is_ok() && begun.is_ok()
    }

    fn check_begun(&mut self) -> std::result::Result<Index, Fault> {
        self.damage.clone().map_or_else(|| self.guard.check_begun(), Err)
    }

    /// Tells of a fault once, and of its end; clients hear less than the log.
    fn judge<T>(&mut self, checked: std::result::Result<T, Fault>) -> Result<T> {
        let was_faulty = std::mem::replace(&mut self.is_faulty, checked.is_err());
        self.metrics.file_faults.set(self.is_faulty.into());
        match &checked {
            Ok(_) if was_faulty => log::info!("the database is at its path again: writes go on"),
            Err(fault) if !was_faulty => log::error!(
                "NOTHING MORE IS WRITTEN: {fault}; what clients send from now on is UNAVAILABLE, not acknowledged"
            ),
            _ => {}
        }
        if let Err(fault @ Fault::Damaged(_)) = &checked {
            self.damage = Some(fault.clone());
        }
        checked.map_err(|_| Error::Unavailable(FAULTY.to_owned()))
    }

    fn measure(&self) -> u64 {
        let size = self.guard.log_file_bytes();
        self.metrics.wal_bytes.set(size as i64);
        size
    }

    /// Whether the whole log was copied, and with TRUNCATE cut to nothing.
    fn checkpoint(&mut self, conn: &Connection, mode: &str, timeout: Duration) -> bool {
        self.end_log(conn);
        let checkpoint = |conn: &Connection| -> rusqlite::Result<bool> {
            let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
            let (is_busy, frames, copied): (i64, i64, i64) =
                conn.query_row(&checkpoint, [], |row| row.try_into())?;
            Ok(is_busy == 0 && frames == copied)
        };
        let done = self.with_wait(conn, timeout, checkpoint);
        self.guard.checkpointed();
        done.unwrap_or_else(|error| {
            log::warn!("a checkpoint failed: {error}");
            false
        })
    }

    /// The state at the end of a log has a number of its own: no copy that was made before has it.
    fn end_log(&mut self, conn: &Connection) {
        let has_news = self.guard.index().is_ok_and(|index| index.frames > index.copied);
        if has_news {
            match self.with_wait(conn, Duration::ZERO, renew) {
                Ok(state) => self.guard.state = state,
                // A full disk must not keep the log from being copied.
                Err(error) => log::debug!("the end of the log is not marked: {error}"),
            }
        }
    }

    fn with_wait<T>(
        &self,
        conn: &Connection,
        timeout: Duration,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        conn.busy_timeout(timeout)?;
        let result = work(conn);
        conn.busy_timeout(self.busy_timeout)?;
        result
    }
}

/// What clients hear; the operator finds the rest in the log.
const FAULTY: &str =
    "the database file was moved, replaced or damaged under the server: nothing more is written";

fn renew(conn: &Connection) -> rusqlite::Result<State> {
    conn.prepare_cached(sql::RENEW_FILE_STATE)?.query_row([], |row| row.get(0))
}
