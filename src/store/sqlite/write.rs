//! The connection that writes, and its transactions.

use std::sync::Arc;

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::model::{Ack, Created, Event};
use crate::store::sqlite::health::Health;
use crate::store::sqlite::totals::Totals;
use crate::store::sqlite::wal::Wal;
use crate::store::sqlite::{bulk, reconcile, Committed};
use crate::store::staged::Staged;
use crate::store::write::Transaction;

pub struct WriteConnection {
    conn: Connection,
    wal: Wal,
    health: Health,
    committed: Arc<Committed>,
    /// Of the transaction that is open.
    totals: Totals,
    /// The same, at the savepoint.
    saved: Option<Totals>,
}

impl WriteConnection {
    /// It keeps the highest committed sequences in `committed`.
    pub fn new(
        conn: Connection,
        wal: Wal,
        health: Health,
        committed: Arc<Committed>,
    ) -> WriteConnection {
        WriteConnection { conn, wal, health, committed, totals: Totals::default(), saved: None }
    }

    /// A write that is for nothing but to see whether it succeeds.
    fn probe(&mut self) {
        let touched = self.begin().and_then(|()| self.wal.touch(&self.conn));
        if let Err(error) = touched.and_then(|()| self.commit()) {
            self.roll_back();
            self.note(&error);
        }
    }

    fn end(&mut self) {
        (self.totals, self.saved) = (Totals::default(), None);
        if self.is_open() {
            if let Err(error) = self.execute("ROLLBACK") {
                log::error!("a rollback failed: {error}");
            }
        }
    }

    fn execute(&self, statement: &str) -> Result<()> {
        self.conn.prepare_cached(statement)?.execute([])?;
        Ok(())
    }
}

impl Drop for WriteConnection {
    fn drop(&mut self) {
        self.health.ended();
    }
}

impl Transaction for WriteConnection {
    fn begin(&mut self) -> Result<()> {
        // There is none, unless its rollback failed.
        self.end();
        self.health.waits();
        let begun = self.execute("BEGIN IMMEDIATE");
        self.health.waited(&begun);
        begun?;
        let begun = self.wal.begun(&self.conn);
        if begun.is_err() {
            self.end();
        }
        begun
    }

    fn commit(&mut self) -> Result<()> {
        let mut totals = std::mem::take(&mut self.totals);
        totals.save(&self.conn)?;
        self.execute("COMMIT")?;
        // Before any caller has its answer.
        self.committed.set(totals.given());
        self.wal.committed(&self.conn)?;
        self.health.committed();
        Ok(())
    }

    fn roll_back(&mut self) {
        if self.is_open() {
            self.wal.rolling_back();
        }
        self.end();
    }

    fn is_open(&self) -> bool {
        !self.conn.is_autocommit()
    }

    fn savepoint(&mut self) -> Result<()> {
        self.totals.save_customers(&self.conn)?;
        self.execute("SAVEPOINT job")?;
        self.saved = Some(self.totals.clone());
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        self.saved = None;
        self.execute("RELEASE job")
    }

    fn rollback_to(&mut self) -> Result<()> {
        self.execute("ROLLBACK TO job")?;
        self.totals = self.saved.take().unwrap_or_default();
        self.release()
    }

    fn create(
        &mut self,
        batch_id: &str,
        staged: &mut Staged,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<Created> {
        bulk::create(&self.conn, &mut self.totals, batch_id, staged, is_unwanted)
    }

    fn apply(&mut self, events: &[Event]) -> Result<Vec<Ack>> {
        reconcile::apply(&self.conn, &mut self.totals, events)
    }

    fn note(&mut self, error: &Error) {
        self.wal.note(error);
        self.health.failed(error);
    }

    fn rest(&mut self) {
        self.wal.limit(&self.conn);
    }

    fn idle(&mut self) {
        let is_well = self.wal.idle(&self.conn);
        // While all is well nothing is written, and the log stays empty.
        if is_well && self.health.has_failed() {
            self.probe();
        }
    }

    fn close(&mut self) {
        self.wal.close(&self.conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::{NewInvoice, Timestamp};
    use crate::store::sqlite::open;
    use crate::store::sqlite::wal::FAULTY;
    use crate::store::write::Writer;
    use crate::store::Store;
    use futures::executor::block_on;

    /// An upload with a memo of so many bytes.
    fn upload(invoice_id: &str, memo_bytes: usize) -> Staged {
        let mut staged = Staged::default();
        staged.push(&NewInvoice {
            invoice_id,
            customer_id: "c",
            total_amount_cents: 5,
            currency: "EUR",
            issued_at: Timestamp { seconds: 0, nanos: 0 },
            memo: &"m".repeat(memo_bytes),
        });
        staged
    }

    /// SQLite ends the transaction by itself: the jobs before and after the one that fills the disk have
    /// nothing that could be committed, and hear the reason.
    #[test]
    fn a_disk_that_is_full_in_the_middle_of_a_group_is_unavailable_to_every_job() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let (_database, connection, _file) = open(&config, &Arc::default()).unwrap();
        let conn = &connection.conn;
        let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        let writer = Writer::new(&config);
        let create = |upload| writer.create(String::new(), upload, false).unwrap();
        let group = [upload("1", 1), upload("2", 50_000), upload("3", 1)].map(create);
        // What waits for the start of the writer is one group.
        let (stop, thread) = writer.start(connection, Arc::default()).unwrap();
        for created in group.map(block_on) {
            assert_eq!(created, Err(Error::Unavailable("the disk is full".to_owned())));
        }
        assert_eq!(block_on(create(upload("4", 1))).unwrap().first_sequence, 1);
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn a_database_that_a_reader_finds_malformed_is_ill_from_the_next_write_on() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
        let (store, thread) = Store::open(&config, &Arc::default()).unwrap();
        let create = |id| block_on(store.create(String::new(), upload(id, 1), false).unwrap());
        assert!(create("1").is_ok());
        assert_eq!(store.health(), Vec::<String>::new());
        let found = Error::Malformed("SQLite: on purpose".to_owned());
        store.database().reader().malformed.note(&found);
        let ill = Err(Error::Unavailable(FAULTY.to_owned()));
        assert_eq!(create("2").map(drop), ill);
        let why = "the database file is malformed: SQLite: on purpose (until a restart)";
        assert_eq!(store.health(), [why]);
        thread.stop();
        assert_eq!(store.health(), [why, "the writer has ended"]);
    }
}
