//! What ends a backup before its end, and what is left of it: nothing.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use billstream::client::{self, Backup, Client, Code};
use billstream::grpc::methods::BACKUP;
use billstream::proto::admin::{BackupChunk, BackupHead, BackupRequest};
use billstream::Config;
use futures::executor::block_on;
use futures::{FutureExt, SinkExt, StreamExt};
use grpcio::{
    CallOption, ChannelBuilder, ClientSStreamReceiver, EnvBuilder, RpcStatusCode, ServerBuilder,
    ServerCredentials, ServiceBuilder, WriteFlags,
};
use sha2::{Digest, Sha256};

use crate::common::*;

/// A client that takes what its window of 64 KiB holds, and nothing more unless it is asked to.
struct Slow {
    stream: ClientSStreamReceiver<BackupChunk>,
    /// Its thread is the stream's.
    _client: grpcio::Client,
}

fn slow(server: &TestServer) -> Slow {
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let builder = ChannelBuilder::new(env).http2_bdp_probe(false).use_local_subchannel_pool(true);
    let client = grpcio::Client::new(builder.connect(&server.addr()));
    let call = client.server_streaming(&BACKUP, &BackupRequest::new(), CallOption::default());
    Slow { stream: call.unwrap(), _client: client }
}

/// The temporary files of this process in `dir`, which have no name there.
fn unnamed_files(dir: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    let dir = dir.to_str().unwrap();
    targets
        .filter(|target| {
            let target = target.to_string_lossy();
            target.starts_with(dir) && target.ends_with("(deleted)")
        })
        .count()
}

/// Waits until the copy is made, and begins to be sent.
fn begun(server: &TestServer) -> Slow {
    let mut slow = slow(server);
    let head = block_on(slow.stream.next()).unwrap().unwrap().head;
    assert_eq!(head.invoice_count, 100_000);
    assert!(!block_on(slow.stream.next()).unwrap().unwrap().data.is_empty());
    slow
}

#[test]
fn past_the_limit_it_is_refused_and_cancelled_it_leaves_nothing() {
    let mut server = TestServer::with_copy(&database(100_000), Config::default());
    let slow = begun(&server);
    let dir = server.dir.path();
    assert_eq!((server.get().streams_open(), unnamed_files(dir)), (1, 1));
    let names = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    let names_before = names(dir);
    let client = Client::connect(&server.addr()).with_retries(Duration::ZERO);
    let refused = client.backup().err().unwrap();
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert!(refused.message.contains("max_backups of 1 are open"), "{refused}");
    assert!(refused.retry_delay.is_some());
    assert_eq!(server.get().metrics().refused("max_backups"), 1);
    drop(slow);
    eventually("its file is gone", || unnamed_files(dir) == 0);
    eventually("its place is free", || client.backup().is_ok());
    eventually("all is over", || server.get().streams_open() == 0 && unnamed_files(dir) == 0);
    assert_eq!(names(dir), names_before);
    server.stop();
}

#[test]
fn a_client_that_takes_nothing_is_ended() {
    let config = Config { stall_timeout_ms: 200, ..Config::default() };
    let mut server = TestServer::with_copy(&database(100_000), config);
    let mut slow = begun(&server);
    eventually("the server ends it", || server.get().streams_open() == 0);
    assert_eq!(unnamed_files(server.dir.path()), 0);
    let (_, error) = collect(&mut slow.stream);
    assert_status::<()>(Err(error.unwrap()), RpcStatusCode::DEADLINE_EXCEEDED, "stall_timeout_ms");
    server.stop();
}

#[test]
fn a_stop_of_the_server_ends_it() {
    let mut server = TestServer::with_copy(&database(100_000), Config::default());
    let mut slow = begun(&server);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(unnamed_files(server.dir.path()), 0);
    let (_, error) = collect(&mut slow.stream);
    assert!(error.is_some());
}

/// A server that sends these chunks for a backup.
fn impostor(chunks: Vec<BackupChunk>) -> (grpcio::Server, Client) {
    let service = ServiceBuilder::new()
        .add_server_streaming_handler(&BACKUP, move |ctx, _, mut sink| {
            let chunks = chunks.clone();
            let send = async move {
                for chunk in chunks {
                    sink.send((chunk, WriteFlags::default())).await?;
                }
                sink.close().await
            };
            ctx.spawn(send.map(|_: grpcio::Result<()>| ()));
        })
        .build();
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let mut server = ServerBuilder::new(env).register_service(service).build().unwrap();
    let port = server.add_listening_port("127.0.0.1:0", ServerCredentials::insecure()).unwrap();
    server.start();
    let client = Client::connect(&format!("127.0.0.1:{port}"));
    (server, client.with_retries(Duration::ZERO))
}

fn head(total_bytes: i64) -> BackupChunk {
    let head = BackupHead { total_bytes, ..BackupHead::default() };
    BackupChunk { head: Some(head).into(), ..BackupChunk::default() }
}

fn data(data: &[u8]) -> BackupChunk {
    BackupChunk { data: data.to_vec(), ..BackupChunk::default() }
}

fn hash(of: &[u8]) -> BackupChunk {
    BackupChunk { sha256: Sha256::digest(of).to_vec(), ..BackupChunk::default() }
}

#[test]
fn what_is_not_whole_has_not_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("copy.db");
    for (chunks, why) in [
        (vec![data(b"abc")], "begins without its head"),
        (vec![head(3)], "the stream ended before it did"),
        (vec![head(3), data(b"abc")], "the stream ended before it did"),
        (vec![head(4), data(b"abc"), hash(b"abc")], "3 bytes came"),
        (vec![head(3), data(b"abc"), hash(b"abd")], "not those that the server sent"),
        (vec![head(3), data(b"abc"), hash(b"abc")], "is not a SQLite database"),
    ] {
        let (_server, client) = impostor(chunks);
        let error = client.backup_to(&to, |_, _| ()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}, not {why}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    // A reader has the bytes as they come, and hears of it at the end.
    let (_server, client) = impostor(vec![head(3), data(b"abc"), hash(b"abd")]);
    let mut bytes = Vec::new();
    let mut backup: Backup = client.backup().unwrap();
    let error = backup.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(bytes, b"abc");
    assert_eq!(error.downcast::<client::Error>().unwrap().code, Code::DataLoss);
}

#[test]
fn a_copy_over_another_file_is_refused_before_the_server_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("copy.db");
    std::fs::write(&to, "mine").unwrap();
    let error = Client::connect("127.0.0.1:1").backup_to(&to, |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("exists: name a new file"), "{error}");
    assert_eq!(std::fs::read(&to).unwrap(), b"mine");
}

/// In process nobody is asked to let go of it.
#[test]
fn a_backup_that_nobody_reads_holds_up_no_stop() {
    let mut server = TestServer::with_copy(&database(100_000), Config::default());
    let mut unread = server.get().local().backup().unwrap();
    unread.read_exact(&mut [0; 16]).unwrap();
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(unread);

    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("bills.db");
    std::fs::copy(database(100_000), &db).unwrap();
    let client = Client::open(&db).unwrap();
    let mut unread = client.backup().unwrap();
    unread.read_exact(&mut [0; 16]).unwrap();
    drop((client, unread));
}
