//! Backup: a copy of the database for a client.
//!
//! It has a thread, which first makes the copy in a temporary file, in one read transaction, and then sends it
//! through a bounded channel. Where the client is slow the thread waits for it, with nothing of the database.
//! There are as many threads as backups that may be open. (Who may have one is asked where calls
//! come in: see `auth`.)

use std::fs::File;
use std::io::{self, Read, Seek};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use sha2::{Digest, Sha256};

use crate::bridge::{self, Receiver, SendTimeoutError, Sender};
use crate::calls::call::Call;
use crate::calls::Core;
use crate::config::{BACKUP_CHUNK_BYTES, BACKUP_QUEUE_CHUNKS};
use crate::error::{Error, Result};
use crate::proto::admin::{BackupChunk, BackupHead};
use crate::stop::{Reason, Stop};
use crate::store::Snapshot;
use crate::workers::Ticket;

/// How often a thread that waits for its client looks at its stop.
const LOOK: Duration = Duration::from_millis(100);

/// A backup that was admitted. Dropping it ends its thread's work, and removes the copy.
pub struct Backup {
    chunks: Receiver<BackupChunk>,
    verdict: Verdict,
    _ticket: Ticket,
}

/// How the thread's work ended; `None` while it has not.
type Verdict = Arc<Mutex<Option<Result<()>>>>;

impl Backup {
    /// Admits the call and schedules the copy, which ends for `stop` too.
    pub fn start(call: &Call, stop: Stop) -> Result<Backup> {
        let core = Arc::clone(&call.core);
        let peer = call.peer();
        let permit = core.limits.admit(&core.limits.backups, &peer)?;
        let (sender, chunks) = bridge::bounded(BACKUP_QUEUE_CHUNKS);
        let verdict = Verdict::default();
        let (queue, told) = (core.backups.clone(), Arc::clone(&verdict));
        let job = move || {
            let closed = sender.closed();
            let stop = stop.when(move || closed.get(), Reason::ClientGone);
            let result = run(&core, &Outlet { sender: &sender, stop: &stop });
            *told.lock().unwrap_or_else(|e| e.into_inner()) = Some(result);
            // A place is free before the client sees the end.
            drop(permit);
        };
        // There is room for every backup that is admitted, so the server is stopping.
        let ticket = queue.submit(&peer, job).map_err(|_| Error::from(Reason::Stopping))?;
        Ok(Backup { chunks, verdict, _ticket: ticket })
    }

    /// The next chunk; `None` after the last one, and then [`Backup::end`] tells whether it was the last.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<BackupChunk>> {
        Pin::new(&mut self.chunks).poll_next(cx)
    }

    /// How the copy ended; to be asked once, after its last chunk.
    pub fn end(&self) -> Result<()> {
        let verdict = self.verdict.lock().unwrap_or_else(|e| e.into_inner()).take();
        let lost = || Err(Error::Internal("a backup ended without its last chunk".to_owned()));
        verdict.unwrap_or_else(lost)
    }
}

fn run(core: &Core, outlet: &Outlet<'_>) -> Result<()> {
    let (dir, spare_bytes) = (core.config.spool_dir(), core.config.wal_limit_bytes);
    let begun = |snapshot| outlet.send(chunk_of_head(snapshot));
    let mut copy = core.store.snapshot(dir, spare_bytes, outlet.stop, begun)?;
    let unreadable = |e: io::Error| Error::Internal(format!("a copy cannot be read: {e}"));
    copy.rewind().map_err(unreadable)?;
    let mut hash = Sha256::new();
    loop {
        let data = read_chunk(&mut copy).map_err(unreadable)?;
        if data.is_empty() {
            let sha256 = hash.finalize().to_vec();
            return outlet.send(BackupChunk { sha256, ..BackupChunk::default() });
        }
        hash.update(&data);
        outlet.send(BackupChunk { data, ..BackupChunk::default() })?;
    }
}

fn read_chunk(copy: &mut File) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(BACKUP_CHUNK_BYTES);
    copy.take(BACKUP_CHUNK_BYTES as u64).read_to_end(&mut data)?;
    Ok(data)
}

fn chunk_of_head(snapshot: Snapshot) -> BackupChunk {
    let head = BackupHead {
        // OK because no file has 2^63 bytes.
        total_bytes: snapshot.bytes as i64,
        invoice_count: snapshot.invoice_count,
        last_sequence: snapshot.last_sequence,
        ..BackupHead::default()
    };
    BackupChunk { head: Some(head).into(), ..BackupChunk::default() }
}

/// The thread's side of the channel.
struct Outlet<'a> {
    sender: &'a Sender<BackupChunk>,
    stop: &'a Stop,
}

impl Outlet<'_> {
    /// Waits for room, until the stop.
    fn send(&self, mut chunk: BackupChunk) -> Result<()> {
        loop {
            self.stop.check()?;
            chunk = match self.sender.send_timeout(chunk, LOOK) {
                Err(SendTimeoutError::Timeout(chunk)) => chunk,
                Err(SendTimeoutError::Disconnected(_)) => return Err(Error::Cancelled),
                Ok(()) => return Ok(()),
            }
        }
    }
}
