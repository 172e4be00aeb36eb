//! The peer as tonic's documentation and the usual advice have it: blocking work in
//! `spawn_blocking`, connections from an r2d2 pool, an `mpsc(16)` behind a `ReceiverStream`, one
//! struct a row, and a commit a request or event.

use std::error::Error;
use std::path::PathBuf;

use compare::proto::report_service_server::{ReportService, ReportServiceServer};
use compare::proto::{
    BulkResult, CreateInvoiceBatch, CreateInvoiceRequest, EventBatch, ExportEventsRequest,
    ExportRequest, GetInvoiceRequest, GetInvoiceResponse, Invoice, InvoiceBatch,
    ListInvoicesRequest, ListInvoicesResponse, ReconcileAck, ReconcileAckBatch, ReconcileEvent,
    ReconcileEventBatch, Summary, SummaryRequest,
};
use compare::totals::Totals;
use compare::{bulk, reconcile, rules, store};
use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Invoices in a message of ExportInvoiceBatches: 40 to 50 KiB.
const BATCH_ROWS: usize = 500;

type SqlitePool = Pool<SqliteConnectionManager>;

pub fn serve(db: PathBuf, address: &str) -> Result<(), Box<dyn Error>> {
    let manager = || SqliteConnectionManager::file(&db).with_init(store::pragmas);
    let peer = Idiomatic {
        readers: Pool::new(manager())?,
        // SQLite has one writer: waiting for its connection here is kinder than its busy handler.
        writer: Pool::builder().max_size(1).build(manager())?,
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let incoming = crate::listen(address).await?;
        Server::builder()
            .add_service(ReportServiceServer::new(peer))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

struct Idiomatic {
    readers: SqlitePool,
    writer: SqlitePool,
}

/// Runs `work` on a blocking thread with a pooled connection.
async fn blocking<T: Send + 'static>(
    pool: &SqlitePool,
    work: impl FnOnce(&mut Connection) -> store::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let pool = pool.clone();
    spawn_blocking(move || Ok(work(&mut *checkout(&pool)?)?))
        .await
        .map_err(|_| Status::internal("the work panicked"))?
}

fn checkout(pool: &SqlitePool) -> Result<r2d2::PooledConnection<SqliteConnectionManager>, Status> {
    pool.get().map_err(|_| Status::unavailable("no connection was free in time"))
}

/// Sends what `scan` produces; a failure is the last message.
fn stream<T: Send + 'static>(
    pool: &SqlitePool,
    scan: impl FnOnce(&Connection, &mpsc::Sender<Result<T, Status>>) -> store::Result<()>
        + Send
        + 'static,
) -> Response<ReceiverStream<Result<T, Status>>> {
    let (sender, receiver) = mpsc::channel(16);
    let pool = pool.clone();
    spawn_blocking(move || {
        let done =
            checkout(&pool).and_then(|connection| scan(&connection, &sender).map_err(Status::from));
        if let Err(status) = done {
            // An error here means that the client is gone.
            let _ = sender.blocking_send(Err(status));
        }
    });
    Response::new(ReceiverStream::new(receiver))
}

impl Idiomatic {
    async fn create(
        &self,
        upload: rules::Upload,
        required: bool,
    ) -> Result<Response<BulkResult>, Status> {
        let upload = upload.finish(required)?;
        crate::settle().await;
        let result = blocking(&self.writer, move |connection| {
            let transaction = store::begin(connection)?;
            let result = bulk::create(&transaction, &upload.invoices, upload.commit.as_ref())?;
            transaction.commit()?;
            Ok(result)
        });
        Ok(Response::new(result.await?))
    }
}

#[tonic::async_trait]
impl ReportService for Idiomatic {
    type ExportEventsStream = tokio_stream::Empty<Result<EventBatch, Status>>;

    async fn get_invoice(
        &self,
        _: Request<GetInvoiceRequest>,
    ) -> Result<Response<GetInvoiceResponse>, Status> {
        Err(Status::unimplemented("the ledger is not compared"))
    }

    async fn export_events(
        &self,
        _: Request<ExportEventsRequest>,
    ) -> Result<Response<Self::ExportEventsStream>, Status> {
        Err(Status::unimplemented("the ledger is not compared"))
    }

    async fn get_summary(
        &self,
        request: Request<SummaryRequest>,
    ) -> Result<Response<Summary>, Status> {
        let request = request.into_inner();
        let summary = blocking(&self.readers, move |connection| {
            let transaction = connection.unchecked_transaction()?;
            store::summary(&transaction, &request)
        });
        Ok(Response::new(summary.await?))
    }

    async fn list_invoices(
        &self,
        request: Request<ListInvoicesRequest>,
    ) -> Result<Response<ListInvoicesResponse>, Status> {
        let request = request.into_inner();
        let page = blocking(&self.readers, move |connection| {
            let mut invoices = Vec::new();
            let next_page_token = store::page(connection, &request, store::COLUMNS, |row| {
                invoices.push(store::invoice(row)?);
                Ok(())
            })?;
            Ok(ListInvoicesResponse { invoices, next_page_token })
        });
        Ok(Response::new(page.await?))
    }

    type ExportInvoicesStream = ReceiverStream<Result<Invoice, Status>>;

    async fn export_invoices(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportInvoicesStream>, Status> {
        let request = request.into_inner();
        Ok(stream(&self.readers, move |connection, sender| {
            store::Scan::export(connection, &request, store::COLUMNS)?.run(connection, |row| {
                Ok(sender.blocking_send(Ok(store::invoice(row)?)).is_ok())
            })?;
            Ok(())
        }))
    }

    type ExportInvoiceBatchesStream = ReceiverStream<Result<InvoiceBatch, Status>>;

    async fn export_invoice_batches(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportInvoiceBatchesStream>, Status> {
        let request = request.into_inner();
        Ok(stream(&self.readers, move |connection, sender| {
            let mut invoices = Vec::with_capacity(BATCH_ROWS);
            store::Scan::export(connection, &request, store::COLUMNS)?.run(connection, |row| {
                invoices.push(store::invoice(row)?);
                if invoices.len() < BATCH_ROWS {
                    return Ok(true);
                }
                let full = std::mem::replace(&mut invoices, Vec::with_capacity(BATCH_ROWS));
                Ok(sender.blocking_send(Ok(InvoiceBatch { invoices: full })).is_ok())
            })?;
            if !invoices.is_empty() {
                // An error means that the client is gone: there is nothing more to do anyway.
                let _ = sender.blocking_send(Ok(InvoiceBatch { invoices }));
            }
            Ok(())
        }))
    }

    async fn bulk_create(
        &self,
        request: Request<Streaming<CreateInvoiceRequest>>,
    ) -> Result<Response<BulkResult>, Status> {
        let required = rules::commit_required(request.metadata());
        let mut messages = request.into_inner();
        let mut upload = rules::Upload::default();
        while let Some(message) = messages.message().await? {
            upload.push(message)?;
        }
        self.create(upload, required).await
    }

    async fn bulk_create_batches(
        &self,
        request: Request<Streaming<CreateInvoiceBatch>>,
    ) -> Result<Response<BulkResult>, Status> {
        let required = rules::commit_required(request.metadata());
        let mut batches = request.into_inner();
        let mut upload = rules::Upload::default();
        while let Some(batch) = batches.message().await? {
            batch.requests.into_iter().try_for_each(|message| upload.push(message))?;
        }
        self.create(upload, required).await
    }

    type ReconcileStream = ReceiverStream<Result<ReconcileAck, Status>>;

    async fn reconcile(
        &self,
        request: Request<Streaming<ReconcileEvent>>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        Ok(answers(&self.writer, request, |transaction, event| {
            reconcile::apply(transaction, event, Totals::Triggers)
        }))
    }

    type ReconcileBatchesStream = ReceiverStream<Result<ReconcileAckBatch, Status>>;

    async fn reconcile_batches(
        &self,
        request: Request<Streaming<ReconcileEventBatch>>,
    ) -> Result<Response<Self::ReconcileBatchesStream>, Status> {
        Ok(answers(&self.writer, request, |transaction, batch: &ReconcileEventBatch| {
            let events = batch.events.iter();
            let acks = events.map(|event| reconcile::apply(transaction, event, Totals::Triggers));
            Ok(ReconcileAckBatch { acks: acks.collect::<store::Result<_>>()? })
        }))
    }
}

/// The answers to the messages of a stream, each after its transaction.
fn answers<M: Send + 'static, A: Send + 'static>(
    writer: &SqlitePool,
    request: Request<Streaming<M>>,
    apply: fn(&Connection, &M) -> store::Result<A>,
) -> Response<ReceiverStream<Result<A, Status>>> {
    let (sender, receiver) = mpsc::channel(16);
    let (mut messages, writer) = (request.into_inner(), writer.clone());
    tokio::spawn(async move {
        loop {
            let answer = match messages.message().await {
                Ok(Some(message)) => {
                    let applied = blocking(&writer, move |connection| {
                        let transaction = store::begin(connection)?;
                        let answer = apply(&transaction, &message)?;
                        transaction.commit()?;
                        Ok(answer)
                    });
                    applied.await
                }
                Ok(None) => return,
                Err(status) => Err(status),
            };
            let failed = answer.is_err();
            if sender.send(answer).await.is_err() || failed {
                return;
            }
        }
    });
    Response::new(ReceiverStream::new(receiver))
}
