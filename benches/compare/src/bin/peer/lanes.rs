//! The tuned peer's threads: lanes of readers, and the one writer with group commit.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use compare::store::{self, Error};
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

/// The one thread that writes.
pub struct Writer {
    jobs: Sender<WriteJob>,
}

/// Runs a job in the transaction, if there is one, and if asked in a savepoint of its own.
type WriteJob = Box<dyn FnOnce(Result<&Connection, Status>, Within) -> Done + Send>;

#[derive(PartialEq)]
enum Within {
    Transaction,
    Savepoint,
}

struct Done {
    is_ok: bool,
    /// Answers the client, once the outcome of the commit is known.
    reply: Box<dyn FnOnce(Result<(), Status>)>,
}

impl Writer {
    pub fn start(db: &Path) -> rusqlite::Result<Writer> {
        let (sender, jobs) = bounded(QUEUE);
        let mut connection = store::open(db)?;
        // Room for the pages of a large upload, and 32 MiB of log before they are copied back.
        connection
            .execute_batch("PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 8192;")?;
        spawn("writer", move || {
            while let Ok(first) = jobs.recv() {
                group(&mut connection, first, &jobs);
            }
        });
        Ok(Writer { jobs: sender })
    }

    /// `work` is applied whole or not at all. The answer comes after the commit. Work whose client
    /// is gone before it began is not done.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> store::Result<T> + Send + 'static,
    ) -> Result<Answer<T>, Status> {
        let (reply, receiver) = oneshot::channel();
        let abandoned = Abandoned::default();
        let gone = abandoned.clone();
        let job: WriteJob = Box::new(move |transaction, within| {
            let result = transaction.and_then(|connection| match gone.load(Ordering::Relaxed) {
                true => Err(Status::cancelled("the client is gone")),
                false if within == Within::Savepoint => savepoint(connection, work),
                false => work(connection).map_err(Status::from),
            });
            let is_ok = result.is_ok();
            let reply = Box::new(move |committed: Result<(), Status>| {
                // An error means that the client is gone.
                let _ = reply.send(result.and_then(|value| committed.map(|()| value)));
            });
            Done { is_ok, reply }
        });
        self.jobs.try_send(job).map_err(|_| full())?;
        Ok(Answer { receiver, abandoned })
    }
}

fn savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> store::Result<T>,
) -> Result<T, Status> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]);
    let done = run("SAVEPOINT job").map_err(Error::from).and_then(|_| work(connection));
    if done.is_err() {
        // Where this fails too, SQLite has rolled everything back, and the commit will say so.
        let _ = run("ROLLBACK TO job");
    }
    let _ = run("RELEASE job");
    done.map_err(Status::from)
}

/// One transaction for the job at hand and those that wait behind it. The first needs no
/// savepoint, which makes every page dearer: before it there is nothing to keep.
fn group(connection: &mut Connection, first: WriteJob, jobs: &Receiver<WriteJob>) {
    let transaction = match store::begin(connection) {
        Ok(transaction) => transaction,
        Err(error) => {
            let failed = first(Err(Error::from(error).into()), Within::Transaction);
            return (failed.reply)(Ok(()));
        }
    };
    let first = first(Ok(&transaction), Within::Transaction);
    if !first.is_ok {
        drop(transaction);
        return (first.reply)(Ok(()));
    }
    let mut done = vec![first];
    let waiting = jobs.try_iter().take(GROUP - 1);
    done.extend(waiting.map(|job| job(Ok(&transaction), Within::Savepoint)));
    let outcome = transaction.commit().map_err(|error| Status::from(Error::from(error)));
    for job in done {
        (job.reply)(outcome.clone());
    }
}

fn full() -> Status {
    Status::resource_exhausted("the queue is full")
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    // OK because a server that cannot start its threads cannot start.
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread starts");
}
