//! The tuned peer's threads: lanes of readers, and the one writer with group commit.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use compare::store::{self, Error};
use compare::totals;
use crossbeam_channel::{bounded, Receiver, Sender};
use rusqlite::{ffi, Connection};
use tokio::sync::oneshot;
use tonic::Status;

/// Jobs that may wait for a thread; a further one is RESOURCE_EXHAUSTED.
const QUEUE: usize = 4096;
/// The most jobs in one commit.
const GROUP: usize = 256;
/// Steps of SQLite's machine between two looks at whether anyone still waits for the result.
const STEPS: i32 = 10_000;

/// Set when nobody waits for a job any more.
type Abandoned = Arc<AtomicBool>;

/// The result of a job. Dropping it ends the job.
pub struct Answer<T> {
    pub receiver: oneshot::Receiver<Result<T, Status>>,
    abandoned: Abandoned,
}

impl<T> Answer<T> {
    pub async fn wait(mut self) -> Result<T, Status> {
        (&mut self.receiver).await.unwrap_or_else(|_| Err(Status::internal("the job panicked")))
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// Threads with a connection each, and the queue of what they are to run.
pub struct Lane {
    jobs: Sender<ReadJob>,
}

struct ReadJob {
    abandoned: Abandoned,
    run: Box<dyn FnOnce(&Connection) + Send>,
}

impl Lane {
    pub fn start(db: &Path, name: &str, threads: usize) -> rusqlite::Result<Lane> {
        let (sender, jobs) = bounded(QUEUE);
        for _ in 0..threads {
            let (connection, jobs) = (store::open(db)?, jobs.clone());
            spawn(name, move || read(&connection, &jobs));
        }
        Ok(Lane { jobs: sender })
    }

    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> store::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, Status> {
        let (reply, receiver) = oneshot::channel();
        let abandoned = Abandoned::default();
        let run = Box::new(move |connection: &Connection| {
            // An error means that the client is gone.
            let _ = reply.send(work(connection).map_err(Status::from));
        });
        let job = ReadJob { abandoned: abandoned.clone(), run };
        self.jobs.try_send(job).map_err(|_| full())?;
        Ok(Answer { receiver, abandoned })
    }
}

/// The life of a reader thread. A statement whose client is gone is interrupted.
fn read(connection: &Connection, jobs: &Receiver<ReadJob>) {
    let current = Arc::new(Mutex::new(Abandoned::default()));
    let watched = current.clone();
    let gone = move || watched.lock().is_ok_and(|current| current.load(Ordering::Relaxed));
    if let Err(error) = connection.progress_handler(STEPS, Some(gone)) {
        eprintln!("reader: {error}");
        return;
    }
    for job in jobs {
        if job.abandoned.load(Ordering::Relaxed) {
            continue;
        }
        if let Ok(mut current) = current.lock() {
            *current = job.abandoned;
        }
        (job.run)(connection);
    }
}

/// Runs a query of a few rows on the thread of the caller, which is one of the runtime's: a hand
/// over to another thread would cost more than the query. `None` where it would have had to wait.
pub fn inline<T>(
    db: &Path,
    query: impl FnOnce(&Connection) -> store::Result<T>,
) -> Option<store::Result<T>> {
    thread_local!(static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) });
    CONNECTION.with_borrow_mut(|slot| {
        if slot.is_none() {
            let connection = store::open(db).ok()?;
            connection.busy_timeout(std::time::Duration::ZERO).ok()?;
            *slot = Some(connection);
        }
        match query(slot.as_ref()?) {
            Err(Error::Sql(e)) if e.sqlite_error_code() == Some(ffi::ErrorCode::DatabaseBusy) => {
                None
            }
            done => Some(done),
        }
    })
}

/// A read transaction, until it is dropped. Its statements are prepared once.
pub fn begin_reading(connection: &Connection) -> rusqlite::Result<impl Drop + '_> {
    struct Reading<'a>(&'a Connection);
    impl Drop for Reading<'_> {
        fn drop(&mut self) {
            if let Err(error) = run(self.0, "ROLLBACK") {
                eprintln!("reader: {error}");
            }
        }
    }
    run(connection, "BEGIN")?;
    Ok(Reading(connection))
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// The one thread that writes.
pub struct Writer {
    jobs: Sender<Box<dyn WriteJob>>,
}

trait WriteJob: Send {
    /// Does the work and keeps its result; whether it succeeded. It may be asked again, after a
    /// rollback.
    fn run(&mut self, connection: &Connection) -> bool;
    fn is_abandoned(&self) -> bool;
    /// Answers the client, now that the outcome of the commit is known.
    fn finish(self: Box<Self>, committed: Result<(), Status>);
}

struct Write<T, F> {
    work: F,
    result: Result<T, Status>,
    reply: oneshot::Sender<Result<T, Status>>,
}

impl<T: Send, F: FnMut(&Connection) -> store::Result<T> + Send> WriteJob for Write<T, F> {
    fn run(&mut self, connection: &Connection) -> bool {
        let work = std::panic::AssertUnwindSafe(|| (self.work)(connection));
        self.result = match std::panic::catch_unwind(work) {
            Ok(result) => result.map_err(Status::from),
            Err(_) => Err(Status::internal("the job panicked")),
        };
        self.result.is_ok()
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn finish(self: Box<Self>, committed: Result<(), Status>) {
        // An error means that the client is gone.
        let _ = self.reply.send(self.result.and_then(|value| committed.map(|()| value)));
    }
}

impl Writer {
    pub fn start(db: &Path) -> rusqlite::Result<Writer> {
        let (sender, jobs) = bounded::<Box<dyn WriteJob>>(QUEUE);
        let connection = store::open(db)?;
        // Room for the pages of a large upload, and 32 MiB of log before they are copied back.
        connection
            .execute_batch("PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 8192;")?;
        totals::without_triggers(&connection)?;
        spawn("writer", move || {
            while let Ok(first) = jobs.recv() {
                let mut group = vec![first];
                group.extend(jobs.try_iter().take(GROUP - 1));
                commit(&connection, group);
            }
        });
        Ok(Writer { jobs: sender })
    }

    /// `work` is applied whole or not at all. The answer comes after the commit. Work whose client
    /// is gone before the commit is not done.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> store::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, Status> {
        let (reply, receiver) = oneshot::channel();
        let result = Err(Status::cancelled("the client is gone"));
        self.jobs.try_send(Box::new(Write { work, result, reply })).map_err(|_| full())?;
        Ok(Answer { receiver, abandoned: Abandoned::default() })
    }
}

/// One transaction for all jobs. They run without savepoints, which make every page dearer, unless
/// one of them fails: then once more, each in its own.
fn commit(connection: &Connection, mut group: Vec<Box<dyn WriteJob>>) {
    let mut savepoints = false;
    let outcome = loop {
        group.retain(|job| !job.is_abandoned());
        match attempt(connection, &mut group, savepoints) {
            Ok(true) => break Ok(()),
            // Once more: a job failed, or a client has left.
            Ok(false) => savepoints = true,
            Err(error) => break Err(Status::from(Error::from(error))),
        }
    };
    if !connection.is_autocommit() {
        if let Err(error) = run(connection, "ROLLBACK") {
            eprintln!("writer: {error}");
        }
    }
    group.into_iter().for_each(|job| job.finish(outcome.clone()));
}

/// Whether it was committed; otherwise it was rolled back.
fn attempt(
    connection: &Connection,
    group: &mut [Box<dyn WriteJob>],
    savepoints: bool,
) -> rusqlite::Result<bool> {
    run(connection, "BEGIN IMMEDIATE")?;
    totals::set_pending(totals::Pending::default());
    for job in group.iter_mut() {
        let pending = savepoints.then(totals::pending);
        if savepoints {
            run(connection, "SAVEPOINT job")?;
        }
        if !job.run(connection) {
            if !savepoints {
                run(connection, "ROLLBACK")?;
                // A job that was alone has its answer.
                return Ok(group.len() == 1);
            }
            // Fails, and with it all jobs, where SQLite has rolled everything back.
            run(connection, "ROLLBACK TO job")?;
            totals::set_pending(pending.unwrap_or_default());
        }
        if savepoints {
            run(connection, "RELEASE job")?;
        }
    }
    if group.iter().any(|job| job.is_abandoned()) {
        run(connection, "ROLLBACK")?;
        return Ok(false);
    }
    totals::save(connection)?;
    run(connection, "COMMIT")?;
    Ok(true)
}

fn full() -> Status {
    Status::resource_exhausted("the queue is full")
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    // OK because a server that cannot start its threads cannot start.
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread starts");
}
