//! What the tests of the wire share: a server with a database of its own, and data for it.
#![allow(dead_code)] // Each test binary uses a part.

pub mod http2;
pub mod process;
pub mod skip;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::{
    BulkCommit, BulkResult, CreateInvoiceRequest, Invoice, ReconcileAck, ReconcileEvent, Summary,
    SummaryRequest,
};
use billstream::{Config, Server};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{
    CallOption, ChannelBuilder, EnvBuilder, GrpcSlice, Marshaller, Method, RpcStatus,
    RpcStatusCode, WriteFlags,
};
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::MessageField;

/// Longer than any step of a test takes; a test that hangs fails instead.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A server on a free port of loopback, with a database in a directory that goes with it.
pub struct TestServer {
    pub server: Option<Server>,
    pub dir: tempfile::TempDir,
    pub config: Config,
}

impl TestServer {
    pub fn start(config: Config) -> TestServer {
        TestServer::on(tempfile::tempdir().unwrap(), config)
    }

    /// Serves a copy of the database at `db`.
    pub fn with_copy(db: &Path, config: Config) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(db, dir.path().join("bills.db")).unwrap();
        TestServer::on(dir, config)
    }

    fn on(dir: tempfile::TempDir, config: Config) -> TestServer {
        let config = Config {
            db: dir.path().join("bills.db"),
            listen: vec!["127.0.0.1:0".to_owned()],
            ..config
        };
        // All tests of a process are one host to the C core, and some cancel a thousand streams.
        let config = Config { max_resets_per_second: 1_000_000, ..config };
        let server = Some(Server::start(config.clone()).unwrap());
        TestServer { server, dir, config }
    }

    pub fn get(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub fn addr(&self) -> String {
        self.get().addr().to_string()
    }

    pub fn client(&self) -> Stub {
        Stub::new(&self.addr())
    }

    /// A client with a window of 64 KiB a stream. By default gRPC enlarges it to what the network
    /// carries, which on loopback is megabytes.
    pub fn slow_client(&self) -> Stub {
        let env = Arc::new(EnvBuilder::new().cq_count(1).build());
        let builder =
            ChannelBuilder::new(env).http2_bdp_probe(false).use_local_subchannel_pool(true);
        Stub::with_channel(builder.connect(&self.addr()))
    }

    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(&self.config.db).unwrap()
    }

    pub fn stop(&mut self) {
        self.server.take().unwrap().shutdown().unwrap();
    }
}

/// For tests that measure time or memory: one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Waits until `holds`, up to [`DEADLINE`].
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(DEADLINE, what, holds)
}

pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A database with `rows` invoices, made once for each number and kept in cargo's directory for
/// tests: 100 customers, 3 currencies, a day between invoices of one customer.
pub fn database(rows: u64) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(|e| e.into_inner());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let done = dir.join(format!("invoices-{rows}-{}.db", env!("CARGO_PKG_VERSION")));
    if !done.exists() {
        let db = dir.join(format!("invoices-{rows}-{}.new", std::process::id()));
        let _ = std::fs::remove_file(&db);
        let listen = vec!["127.0.0.1:0".to_owned()];
        Server::start(Config { db: db.clone(), listen, ..Config::default() })
            .unwrap()
            .shutdown()
            .unwrap();
        let conn = rusqlite::Connection::open(&db).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA synchronous = off;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO invoices (sequence, invoice_id, customer_id, total_amount_cents, currency,
                                   status, paid_cents, issued_at, issued_at_nanos, memo)
             SELECT i, printf('inv-%08d', i), printf('cust-%03d', i % 100), i % 10000 + 1,
                    substr('USDEURJPY', i % 3 * 3 + 1, 3), 1, 0, 946684800 + i * 864, 0,
                    printf('memo of invoice %d', i)
             FROM n;
             PRAGMA wal_checkpoint(TRUNCATE);"
        ))
        .unwrap();
        drop(conn);
        std::fs::rename(&db, &done).unwrap();
        let _ = std::fs::remove_file(format!("{}-lock", db.display()));
    }
    done
}

pub fn time(seconds: i64) -> MessageField<Timestamp> {
    MessageField::some(Timestamp { seconds, ..Timestamp::default() })
}

pub fn invoice(invoice_id: &str, cents: i64) -> CreateInvoiceRequest {
    CreateInvoiceRequest {
        invoice_id: invoice_id.to_owned(),
        customer_id: "cust-1".to_owned(),
        total_amount_cents: cents,
        currency: "USD".to_owned(),
        issued_at: time(1_000_000_000),
        memo: "a memo".to_owned(),
        ..CreateInvoiceRequest::default()
    }
}

pub fn commit(batch_id: &str, count: i64) -> CreateInvoiceRequest {
    let commit = BulkCommit { batch_id: batch_id.to_owned(), count, ..BulkCommit::default() };
    CreateInvoiceRequest { commit: MessageField::some(commit), ..CreateInvoiceRequest::default() }
}

pub fn event(event_id: &str, invoice_id: &str, cents: i64) -> ReconcileEvent {
    ReconcileEvent {
        event_id: event_id.to_owned(),
        invoice_id: invoice_id.to_owned(),
        amount_cents: cents,
        currency: "USD".to_owned(),
        received_at: time(1_100_000_000),
        ..ReconcileEvent::default()
    }
}

/// Sends all events on one stream, and gives their acknowledgements.
pub fn reconcile(
    client: &Stub,
    events: impl IntoIterator<Item = ReconcileEvent>,
) -> Vec<ReconcileAck> {
    let (mut sink, acks) = client.reconcile(CallOption::default()).unwrap();
    let (sent, (acks, error)) = block_on(futures::future::join(
        async move {
            for event in events {
                sink.send((event, WriteFlags::default().buffer_hint(true))).await?;
            }
            half_close(&mut sink).await;
            Ok::<_, grpcio::Error>(())
        },
        collecting(acks),
    ));
    assert!(error.is_none(), "{error:?}");
    sent.unwrap();
    acks
}

/// Uploads all requests and half-closes.
pub fn upload(
    client: &Stub,
    requests: impl IntoIterator<Item = CreateInvoiceRequest>,
) -> grpcio::Result<BulkResult> {
    let (mut sink, result) = client.bulk_create(CallOption::default())?;
    block_on(async move {
        for request in requests {
            // A refusal shows in the result.
            if sink.send((request, WriteFlags::default().buffer_hint(true))).await.is_err() {
                return result.await;
            }
        }
        let _ = sink.close().await;
        result.await
    })
}

/// Tells the server that no more messages come.
pub async fn half_close<T: 'static>(
    sink: &mut (impl futures::Sink<T, Error = grpcio::Error> + Unpin),
) {
    // The call may be over before the half-close is through, which grpcio makes an error of.
    let _ = sink.close().await;
}

pub fn summary(client: &Stub) -> Summary {
    client.get_summary(&SummaryRequest::new(), CallOption::default()).unwrap()
}

pub fn collect<T>(
    stream: impl futures::Stream<Item = grpcio::Result<T>> + Unpin,
) -> (Vec<T>, Option<grpcio::Error>) {
    block_on(collecting(stream))
}

async fn collecting<T>(
    mut stream: impl futures::Stream<Item = grpcio::Result<T>> + Unpin,
) -> (Vec<T>, Option<grpcio::Error>) {
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(item) => items.push(item),
            Err(error) => return (items, Some(error)),
        }
    }
    (items, None)
}

pub fn sequences(invoices: &[Invoice]) -> Vec<i64> {
    invoices.iter().map(|invoice| invoice.sequence).collect()
}

/// A method whose requests are bytes.
pub fn raw<Q, P>(method: &Method<Q, P>) -> Method<Vec<u8>, P> {
    Method {
        ty: method.ty,
        name: method.name,
        req_mar: Marshaller {
            ser: |bytes, slice| {
                *slice = GrpcSlice::from(bytes.clone());
                Ok(())
            },
            de: |_| unreachable!("a client receives no requests"),
        },
        resp_mar: Marshaller { ser: method.resp_mar.ser, de: method.resp_mar.de },
    }
}

/// The status of a call that failed.
pub fn status<T: std::fmt::Debug>(result: grpcio::Result<T>) -> RpcStatus {
    match result {
        Err(grpcio::Error::RpcFailure(status)) => status,
        Err(grpcio::Error::RpcFinished(Some(status))) => status,
        other => panic!("expected a status, got {other:?}"),
    }
}

/// Asserts the code and that the message contains `text`.
pub fn assert_status<T: std::fmt::Debug>(
    result: grpcio::Result<T>,
    code: RpcStatusCode,
    text: &str,
) -> RpcStatus {
    let status = status(result);
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{text:?} is not in {:?}", status.message());
    status
}
