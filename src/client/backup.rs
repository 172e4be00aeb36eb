//! A copy of the whole database.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{grpc, local, Client, Code, Error, Result, Transport};
use crate::proto::admin::{BackupChunk, BackupHead, BackupRequest};
use crate::stop::Stop;
use crate::store::{check_copy, NewFile, Snapshot};

/// A copy of the whole database as it comes: a file of SQLite, of the moment of the call.
///
/// It is read to its end like any other reader, and only then it is whole: what does not have the size and the
/// SHA-256 that the server told is an error of the last read. The errors have an [`Error`] in them. Who does not
/// read holds the server's temporary file; dropping this removes it.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let config = billstream::Config { db: dir.path().join("bills.db"), ..Default::default() };
/// # let server = billstream::Server::builder(config).without_listeners().start()?;
/// # let client = server.local();
/// // To anywhere: a bucket, a pipe, memory.
/// let mut backup = client.backup()?;
/// let mut bytes = Vec::new();
/// std::io::copy(&mut backup, &mut bytes)?;
/// assert_eq!(bytes.len() as i64, backup.head().total_bytes);
///
/// // To a file, which has its name when it is whole, sound and on the disk.
/// client.backup_to(dir.path().join("copy.db"), |bytes, of| eprintln!("{bytes} of {of} bytes"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Backup {
    chunks: Chunks,
    stop: Stop,
    head: BackupHead,
    /// The last data that came, of which so much was read.
    data: Vec<u8>,
    read: usize,
    received: u64,
    hash: Sha256,
    is_over: bool,
}

/// The call.
enum Chunks {
    Grpc(grpc::Chunks),
    Local(Box<local::Chunks>),
}

impl Chunks {
    fn open(transport: &Transport) -> Result<Chunks> {
        let request = BackupRequest::default();
        match transport {
            Transport::Grpc(connection) => connection.backup(&request).map(Chunks::Grpc),
            Transport::Local(local) => local.backup().map(|chunks| Chunks::Local(Box::new(chunks))),
        }
    }

    /// The next chunk; `None` at the end of the stream.
    fn next(&mut self, stop: &Stop) -> Result<Option<BackupChunk>> {
        match self {
            Chunks::Grpc(chunks) => chunks.next(stop),
            Chunks::Local(chunks) => chunks.next(stop),
        }
    }
}

impl Client {
    /// Begins a copy of the whole database: see [`Backup`].
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED where the server's disk has no room for it; what [`Client::with_retries`] did not help
    /// against, as another backup under way. What fails later is an error of a read, and is not tried again: a
    /// later copy is another one.
    pub fn backup(&self) -> Result<Backup> {
        let mut retry = self.retry();
        loop {
            match self.backup_once() {
                Err(error) => retry.wait(error)?,
                begun => return begun,
            }
        }
    }

    fn backup_once(&self) -> Result<Backup> {
        let mut chunks = Chunks::open(&self.transport)?;
        let first = chunks.next(&self.stop)?;
        let head = first.and_then(|chunk| chunk.head.into_option());
        Ok(Backup {
            chunks,
            stop: self.stop.clone(),
            head: head.ok_or_else(|| not_whole("it begins without its head"))?,
            data: Vec::new(),
            read: 0,
            received: 0,
            hash: Sha256::new(),
            is_over: false,
        })
    }

    /// Copies the whole database to the new file `to`; returns its size in bytes. The file has its name when it
    /// is whole, checked as by [`check`](crate::server::check), and on the disk. `progress` is told the bytes that
    /// came, and of how many.
    ///
    /// # Errors
    ///
    /// With an [`Error`] in it for the call, and a [`crate::Error`] for the file: `to` exists, or it cannot be written,
    /// or what came is not sound.
    pub fn backup_to(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64),
    ) -> io::Result<u64> {
        // Before the server is asked for anything.
        let mut new = NewFile::create(to.as_ref()).map_err(io::Error::other)?;
        let mut backup = self.backup().map_err(io::Error::other)?;
        let total = backup.head.total_bytes.unsigned_abs();
        progress(0, total);
        while let Some(data) = backup.next()? {
            new.as_file().write_all(data)?;
            progress(backup.received, total);
        }
        let announced = Snapshot {
            bytes: total,
            invoice_count: backup.head.invoice_count,
            last_sequence: backup.head.last_sequence,
        };
        check_copy(new.path(), &announced).map_err(io::Error::other)?;
        // The check takes a while, in which it does not look.
        if self.stop.is_stopped() {
            return Err(io::Error::other(super::cancelled()));
        }
        new.keep().map_err(io::Error::other)
    }
}

impl Backup {
    /// What the copy will be.
    pub fn head(&self) -> &BackupHead {
        &self.head
    }

    /// The data of the next chunk; `None` when the copy is whole.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.take().map_err(io::Error::other)?;
        Ok((!self.is_over).then_some(&self.data[..]))
    }

    fn take(&mut self) -> Result<()> {
        if self.is_over {
            return Ok(());
        }
        let missing = || not_whole("the stream ended before it did");
        let chunk = self.chunks.next(&self.stop)?.ok_or_else(missing)?;
        self.read = 0;
        self.data = chunk.data;
        if chunk.sha256.is_empty() {
            self.hash.update(&self.data);
            self.received += self.data.len() as u64;
            return Ok(());
        }
        if self.received != self.head.total_bytes.unsigned_abs() {
            return Err(not_whole(&format!("{} bytes came", self.received)));
        }
        if self.hash.clone().finalize()[..] != chunk.sha256[..] {
            return Err(not_whole("its bytes are not those that the server sent"));
        }
        self.is_over = true;
        // For the end of the call, which is its client's too.
        self.chunks.next(&self.stop).map(drop)
    }
}

impl Read for Backup {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.read == self.data.len() && !self.is_over {
            self.take().map_err(io::Error::other)?;
        }
        let bytes = (&self.data[self.read..]).read(to)?;
        self.read += bytes;
        Ok(bytes)
    }
}

fn not_whole(why: &str) -> Error {
    Error::new(Code::DataLoss, format!("the copy is not whole: {why}"))
}
