//! The discipline of the write-ahead log: it is copied into the database from `checkpoint_bytes` on and when
//! the writer is idle, and begun anew. SQLite can do that only in a moment without readers in the log; under
//! long scans that moment must be made.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::Connection;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::store::sqlite::file::DatabaseFile;
use crate::store::sqlite::guard::{Fault, Guard, Index, Malformed};
use crate::store::sqlite::health::{Health, LOCK_PATIENCE};
use crate::store::sqlite::sql;
use crate::store::sqlite::wal_file::State;

/// How long to wait for readers to leave the log. Scans leave it within a chunk, so only a reader
/// in another process takes this long.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1000);
/// The same where the last try found such a reader, which may be there for good, as Litestream is: what waits
/// here is the writer.
const LEAVE_AGAIN_TIMEOUT: Duration = Duration::from_millis(50);

/// Raised while the write-ahead log is over its limit: long scans then begin a new transaction,
/// so that the log can be emptied.
#[derive(Clone, Debug, Default)]
pub struct WalPressure(Arc<Pressure>);

#[derive(Debug, Default)]
struct Pressure {
    is_raised: AtomicBool,
    /// Readers of this process that cannot begin a new transaction.
    held: AtomicUsize,
}

impl WalPressure {
    pub fn set(&self, raised: bool) {
        self.0.is_raised.store(raised, Ordering::Relaxed);
    }

    pub fn get(&self) -> bool {
        self.0.is_raised.load(Ordering::Relaxed)
    }

    /// From now until it is dropped the log cannot be emptied, and nobody is to wait for that.
    pub fn hold(&self) -> Held {
        self.0.held.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    fn is_held(&self) -> bool {
        self.0.held.load(Ordering::Relaxed) > 0
    }
}

/// A reader to which [`WalPressure`] is of no use.
pub struct Held(WalPressure);

impl Drop for Held {
    fn drop(&mut self) {
        self.0 .0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

pub struct Wal {
    guard: Guard,
    malformed: Malformed,
    /// What was found for good; until the next start nothing more is written.
    damage: Option<Fault>,
    /// Whether a fault has been told of and lasts.
    is_faulty: bool,
    /// The state of the transaction that is open, where it numbers it anew.
    renewed: Option<State>,
    /// 0: another program copies the log.
    checkpoint_bytes: u64,
    limit_bytes: u64,
    busy_timeout: Duration,
    /// The size at which to copy next: past `checkpoint_bytes` it rises with each try that readers hindered.
    next_checkpoint_bytes: u64,
    /// The size at which to try to empty the log next.
    next_bytes: u64,
    metrics: Arc<Metrics>,
    pressure: WalPressure,
    health: Health,
}

impl Wal {
    /// To be called when `conn` has read the database.
    pub fn new(
        (db, conn): (&DatabaseFile, &Connection),
        config: &Config,
        metrics: Arc<Metrics>,
        pressure: WalPressure,
        malformed: Malformed,
        health: Health,
    ) -> Result<Wal> {
        Ok(Wal {
            guard: Guard::new(db, conn)?,
            malformed,
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
            health,
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

    /// Writes in the transaction that [`Wal::begun`] has let write, and changes nothing that anybody reads.
    pub fn touch(&mut self, conn: &Connection) -> Result<()> {
        if self.renewed.is_none() {
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

    /// To be called before the rollback of a transaction that [`Wal::begun`] has let write.
    pub fn rolling_back(&mut self) {
        self.guard.rolling_back();
    }

    /// Where SQLite has found the file malformed, nothing more is written to it.
    pub fn note(&mut self, error: &Error) {
        self.malformed.note(error);
        if let Some(fault) = self.lasting() {
            // OK to drop: the job has this error.
            drop(self.judge::<()>(Err(fault)));
        }
    }

    /// Empties the log when it has reached its limit, or copies it. To be called after each commit.
    pub fn limit(&mut self, conn: &Connection) {
        let size = self.measure();
        if self.is_faulty || self.lasting().is_some() {
            return;
        }
        if self.is_copied_by_another() {
            self.watch(size);
        } else if size >= self.next_bytes && !self.pressure.is_held() {
            self.pressure.set(true);
            let is_first_try = self.next_bytes == self.limit_bytes;
            let timeout = if is_first_try { LEAVE_TIMEOUT } else { LEAVE_AGAIN_TIMEOUT };
            let emptied = self.checkpoint(conn, "TRUNCATE", timeout);
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

    fn is_copied_by_another(&self) -> bool {
        self.checkpoint_bytes == 0
    }

    /// Says each time that the log has grown by its limit: it is not ours to be emptied.
    fn watch(&mut self, size: u64) {
        if size < self.limit_bytes {
            self.next_bytes = self.limit_bytes;
        } else if size >= self.next_bytes {
            self.next_bytes = size + self.limit_bytes;
            log::warn!(
                "the log has {size} bytes; with checkpoint_bytes of 0 another program is to copy it: is it running?"
            );
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
    /// file, so that a copy of it is worth something. Whether the database is as it should be, and nobody else
    /// writes it.
    pub fn idle(&mut self, conn: &Connection) -> bool {
        let is_well = self.look(conn, LOCK_PATIENCE);
        if is_well && self.measure() > 0 && !self.is_copied_by_another() {
            self.checkpoint(conn, "TRUNCATE", Duration::ZERO);
            self.measure();
        }
        if is_well {
            if let Err(error) = self.guard.sync() {
                self.health.failed(&Error::Unavailable(format!("{UNSYNCED}: {error}")));
            }
        }
        is_well
    }

    /// Leaves everything in the database file, also in one that was moved; but in the log what another program
    /// has still to see there.
    pub fn close(&mut self, conn: &Connection) {
        let is_well = self.look(conn, Duration::ZERO);
        let is_ours = self.lasting().is_none() && !self.is_copied_by_another();
        if is_ours && !self.checkpoint(conn, "TRUNCATE", LEAVE_TIMEOUT) {
            log::info!("another process reads the database: its log is left as it is");
        }
        if !is_well || self.is_copied_by_another() {
            // SQLite would copy what is damaged, and delete the log that is at the path by now.
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            if let Err(error) = conn.set_db_config(keep, true) {
                log::error!("the log may be copied at the end: {error}");
            }
        }
    }

    /// Whether all is as it should be, seen in a transaction that writes nothing.
    fn look(&mut self, conn: &Connection, wait: Duration) -> bool {
        self.health.waits();
        let begun = self.with_wait(conn, wait, |conn| conn.execute_batch("BEGIN IMMEDIATE"));
        let begun = begun.map_err(Error::from);
        self.health.waited(&begun);
        let checked = self.check_begun();
        if begun.is_ok() {
            if let Err(error) = conn.execute_batch("ROLLBACK") {
                log::error!("a rollback failed: {error}");
            }
        } else if matches!(checked, Err(Fault::Damaged(_))) && self.lasting().is_none() {
            // Another process may be writing.
            return false;
        }
        self.judge(checked).is_ok() && begun.is_ok()
    }

    fn check_begun(&mut self) -> std::result::Result<Index, Fault> {
        self.lasting().map_or_else(|| self.guard.check_begun(), Err)
    }

    /// What was found for good, by the writer or by a reader.
    fn lasting(&self) -> Option<Fault> {
        self.damage.clone().or_else(|| self.malformed.fault())
    }

    /// Tells of a fault once, and of its end; clients hear less than the log.
    fn judge<T>(&mut self, checked: std::result::Result<T, Fault>) -> Result<T> {
        // Found since the look began, and not by it.
        let checked = self.lasting().map_or(checked, Err);
        let was_faulty = std::mem::replace(&mut self.is_faulty, checked.is_err());
        self.metrics.file_faults.set(self.is_faulty.into());
        self.health.judged(checked.as_ref().err());
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
            self.health.failed(&error.into());
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
pub const FAULTY: &str =
    "the database file was moved, replaced or damaged under the server: nothing more is written";

const UNSYNCED: &str = "the database cannot be brought to the disk";

fn renew(conn: &Connection) -> rusqlite::Result<State> {
    conn.prepare_cached(sql::RENEW_FILE_STATE)?.query_row([], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::open::open_writer;

    /// A database that is open, and what is to be dropped after its connection.
    fn database() -> (Wal, Connection, DatabaseFile, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let (file, conn) = open_writer(&config).unwrap();
        conn.query_row("SELECT count(*) FROM invoices", [], |_| Ok(())).unwrap();
        let (pressure, malformed) = (WalPressure::default(), Malformed::default());
        let health = Health::new(&file, &config).unwrap();
        let opened = (&file, &conn);
        let wal = Wal::new(opened, &config, Arc::default(), pressure, malformed, health).unwrap();
        (wal, conn, file, dir)
    }

    fn grow(conn: &Connection, bytes: i64) {
        let grow = "INSERT INTO bulk_commits (batch_id, count, first_sequence, last_sequence)
            VALUES (hex(randomblob(?1)), 0, 0, 0)";
        conn.execute(grow, [bytes]).unwrap();
    }

    fn commit(wal: &mut Wal, conn: &Connection, between: impl FnOnce(&mut Wal)) -> Result<()> {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        wal.begun(conn).unwrap();
        grow(conn, 10);
        between(wal);
        conn.execute_batch("COMMIT").unwrap();
        wal.committed(conn)
    }

    #[test]
    fn a_commit_after_the_file_was_found_malformed_is_not_acknowledged_nor_copied() {
        let malformed = Error::Malformed("SQLite: on purpose".to_owned());
        for is_found_by_a_reader in [false, true] {
            let (mut wal, conn, _file, _dir) = database();
            wal.checkpoint_bytes = 1;
            commit(&mut wal, &conn, |_| ()).unwrap();
            let found = commit(&mut wal, &conn, |wal| match is_found_by_a_reader {
                true => wal.malformed.clone().note(&malformed),
                false => wal.note(&malformed),
            });
            assert!(matches!(found, Err(Error::Unavailable(_))), "{found:?}");
            wal.limit(&conn);
            let index = wal.guard.index().unwrap();
            assert!(index.copied < index.frames, "{index:?}");
        }
    }

    /// Or the next transaction would read the whole log to see what they are.
    #[test]
    fn what_a_rollback_leaves_in_the_log_is_known() {
        let (mut wal, conn, file, _dir) = database();
        conn.pragma_update(None, "cache_size", 10).unwrap();
        commit(&mut wal, &conn, |_| ()).unwrap();
        let committed = wal.guard.log_file_bytes();
        for damage in [None, Some(0)] {
            conn.execute_batch("BEGIN IMMEDIATE").unwrap();
            wal.begun(&conn).unwrap();
            (0..100).for_each(|_| grow(&conn, 5000));
            assert!(wal.guard.log_file_bytes() > 2 * committed, "nothing was spilled");
            if let Some(at) = damage {
                use std::os::unix::fs::FileExt;
                let log = crate::store::sqlite::wal_file::beside(file.path(), "-wal");
                let log = std::fs::File::options().write(true).open(log).unwrap();
                log.write_all_at(&[0; 32], at).unwrap();
            }
            wal.rolling_back();
            conn.execute_batch("ROLLBACK").unwrap();
            assert_eq!(wal.guard.is_log_as_left(), damage.is_none());
        }
    }
}
