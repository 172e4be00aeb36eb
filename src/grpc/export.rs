//! ExportInvoices, ExportInvoiceBatches and ExportEvents on gRPC: the side of the client. It turns the chunks of an export
//! into messages as fast as the client's flow control lets it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::poll_fn;
use futures::{ready, Sink};
use grpcio::{DuplexSink, GrpcSlice, RpcContext, WriteFlags};

use crate::calls::export::{go_on, Export, Wanted};
use crate::calls::watch::Watch;
use crate::error::{Error, Result};
use crate::grpc::call::{is_asked_for, Call, Requests};
use crate::grpc::codec::{Encoded, Request};
use crate::grpc::Shared;
use crate::method::Method;
use crate::store::encode::Chunk;

type Messages = DuplexSink<Encoded>;

/// What is exported, and how the rows of a chunk become messages.
#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    /// One a message.
    Invoices,
    /// A chunk a message.
    Batches,
    /// The same of events.
    Events,
}

/// Request metadata by which a client says that it takes batches in gzip, and wants them so. (Which encodings it
/// takes at all is known to the C core alone.)
const COMPRESSION_HEADER: (&str, &str) = ("billstream-compression", "gzip");

pub fn export<W: Wanted>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut requests: Requests<W>,
    mut sink: Messages,
    shape: Shape,
) {
    let method = match shape {
        Shape::Invoices => Method::ExportInvoices,
        Shape::Batches => Method::ExportInvoiceBatches,
        Shape::Events => Method::ExportEvents,
    };
    let call = Call::new(shared, &ctx, method);
    let compression = is_asked_for(&ctx, COMPRESSION_HEADER);
    let is_compressed = (shape != Shape::Invoices && matches!(&compression, Ok(true)))
        && call.core.config.export_compression_level > 0;
    sink.set_headers(call.headers(is_compressed.then_some(COMPRESSED)));
    ctx.spawn(async move {
        let request = call.only(&mut call.core.sweep.place(), &mut requests, "the request").await;
        let request = request.and_then(|request| compression.map(|_| request));
        let result = match request.and_then(|request| start(&call, request, shape)) {
            Ok(outflow) => Box::pin(outflow.run::<W>(&call, &mut sink)).await,
            Err(error) => Err(error),
        };
        call.count(&result);
        call.finish(sink, requests, &result).await;
    });
}

/// A header that the C core takes for itself: the messages of this call are to be in gzip.
const COMPRESSED: (&str, &str) = ("grpc-internal-encoding-request", "gzip");

fn start<W: Wanted>(call: &Call, request: Request<W>, shape: Shape) -> Result<Outflow> {
    let config = &call.core.config;
    let request = request.message(W::NAME, config.filter_bytes())?;
    let before = request.cursor();
    let quick_chunk_bytes = match shape {
        // More would be written by gRPC itself, a fragment of a message at its end.
        Shape::Invoices => config.export_chunk_bytes,
        Shape::Batches | Shape::Events => config.quick_batch_bytes(),
    };
    let watch = Watch::new(call);
    let export = Export::start(call, &watch.live, watch.stop.clone(), request, quick_chunk_bytes)?;
    Ok(Outflow {
        export,
        shape,
        sent: Sent { before, chunk: Chunk::default(), messages: 0, bytes: 0 },
        watch,
    })
}

/// Messages between two looks at the clock, which would take a fiftieth of the time of each. A client that
/// takes fewer between its pauses counts as one that takes nothing.
const MESSAGES_A_LOOK: usize = 16;

struct Outflow {
    export: Export,
    shape: Shape,
    sent: Sent,
    watch: Watch,
}

impl Outflow {
    async fn run<W: Wanted>(self, call: &Call, sink: &mut Messages) -> Result<()> {
        let Outflow { mut export, shape, mut sent, watch } = self;
        let result = watch.guard(flow(call, sink, &mut export, shape, &mut sent, &watch)).await;
        sent.count(call, &watch);
        // Ends the scan, if it has not ended.
        drop(export);
        result.map_err(|error| go_on::<W>(error, sent.cursor(shape)))
    }
}

/// How far the client has been served.
struct Sent {
    /// The last sequence before `chunk`.
    before: i64,
    chunk: Chunk,
    /// Messages of `chunk` that were handed to gRPC, which sends them before any status.
    messages: usize,
    /// Their bytes.
    bytes: usize,
}

impl Sent {
    fn begin(&mut self, chunk: Chunk, shape: Shape) {
        *self = Sent { before: self.cursor(shape), chunk, messages: 0, bytes: 0 };
    }

    /// Counts what was handed over of the chunk; to be called once for each.
    fn count(&self, call: &Call, watch: &Watch) {
        call.sent(self.messages, self.bytes);
        watch.live.count(self.messages, self.bytes);
    }

    /// The last sequence that was handed to gRPC, or where the client began.
    fn cursor(&self, shape: Shape) -> i64 {
        match (shape, self.messages) {
            (_, 0) => self.before,
            (Shape::Invoices, messages) => self.chunk.sequence(messages - 1),
            (Shape::Batches | Shape::Events, _) => self.chunk.sequence(self.chunk.len() - 1),
        }
    }
}

/// Sends every chunk of the scan.
async fn flow(
    call: &Call,
    sink: &mut Messages,
    export: &mut Export,
    shape: Shape,
    sent: &mut Sent,
    watch: &Watch,
) -> Result<()> {
    let mut is_first = true;
    loop {
        // A chunk is taken when there is room for it: one in hand is one more in memory.
        watch.stall.during(poll_fn(|cx| poll_ready(sink, cx))).await?;
        let Some(mut chunk) = next(sink, export).await? else { break };
        // Not for the first: most exports are small.
        if !std::mem::take(&mut is_first) {
            call.shared.poller.chunk_sent();
            sent.count(call, watch);
        }
        let (messages, mut batch) = match shape {
            Shape::Invoices => (chunk.len(), GrpcSlice::default()),
            Shape::Batches | Shape::Events => (1, GrpcSlice::from(chunk.take_batch())),
        };
        sent.begin(chunk, shape);
        let send = poll_fn(|cx| {
            let mut waited = true;
            while sent.messages < messages {
                ready!(poll_ready(sink, cx))?;
                if std::mem::take(&mut waited) && sent.messages.is_multiple_of(MESSAGES_A_LOOK) {
                    // The client took something.
                    watch.stall.begin();
                }
                // A chunk is flushed as one: it ends in a frame of its own, and is smaller than what
                // gRPC would write by itself, with a fragment of a message at the end.
                let is_flushed = sent.messages + 1 == messages;
                let message: Encoded = match shape {
                    Shape::Invoices => sent.chunk.row(sent.messages).into(),
                    Shape::Batches | Shape::Events => std::mem::take(&mut batch).into(),
                };
                let bytes = message.bytes();
                start_send(sink, message, !is_flushed)?;
                sent.messages += 1;
                sent.bytes += bytes;
            }
            Poll::Ready(Ok::<(), Error>(()))
        });
        watch.stall.during(send).await?;
    }
    export.end()
}

/// The next chunk; [`Error::Cancelled`] when the call is over before it.
async fn next(sink: &mut Messages, export: &mut Export) -> Result<Option<Chunk>> {
    poll_fn(|cx| {
        if let Poll::Ready(chunk) = export.poll_next(cx) {
            return Poll::Ready(Ok(chunk));
        }
        // Room in the sink is of no interest here, only the news that the call is over.
        match poll_ready(sink, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    })
    .await
}

fn poll_ready(sink: &mut Messages, cx: &mut Context<'_>) -> Poll<Result<()>> {
    Pin::new(sink).poll_ready(cx).map_err(|_| Error::Cancelled)
}

fn start_send(sink: &mut Messages, message: Encoded, buffered: bool) -> Result<()> {
    let flags = WriteFlags::default().buffer_hint(buffered);
    Pin::new(sink).start_send((message, flags)).map_err(|_| Error::Cancelled)
}
