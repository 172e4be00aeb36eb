//! BulkCreate and BulkCreateBatches on gRPC.
//!
//! The call is watched until the commit: grpcio shows a cancel as the end of the requests, like a half-close,
//! and tells of it a moment later.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::poll_fn;
use futures::{Sink, StreamExt};
use futures_timer::Delay;
use grpcio::{DuplexSink, RpcContext, WriteFlags};

use crate::calls::bulk_create::Upload;
use crate::calls::watch::Watch;
use crate::calls::wire::OfRows;
use crate::error::{Error, Result};
use crate::grpc::call::{is_asked_for, send, Call, Requests};
use crate::grpc::codec::{Encoded, Request};
use crate::grpc::echo::Echoes;
use crate::grpc::Shared;
use crate::method::Method;
use crate::proto::report::CreateInvoiceRequest;

/// Request metadata by which a client says that its upload will end in a commit.
const COMMIT_HEADER: (&str, &str) = ("billstream-commit", "required");

/// For threads that are not the server's: gRPC lets any thread of the process that waits for events,
/// that of a client in the same program too, read any connection. 5 ms were enough in 10,000 tries
/// on two cores with a load of 20, 1 ms was not.
const SETTLE: Duration = Duration::from_millis(10);

type Results = DuplexSink<Encoded>;

/// `M` is a message of the stream.
pub fn bulk_create<M: OfRows<Row = CreateInvoiceRequest>>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut requests: Requests<M>,
    mut sink: Results,
) {
    let method = if M::IS_BATCH { Method::BulkCreateBatches } else { Method::BulkCreate };
    let call = Call::new(shared, &ctx, method);
    sink.set_headers(call.headers(None));
    let needs_commit = is_asked_for(&ctx, COMMIT_HEADER);
    ctx.spawn(async move {
        let result = match call.first(&mut requests).await {
            Ok(first) => {
                Box::pin(admitted(&call, first, &mut requests, &mut sink, needs_commit)).await
            }
            Err(error) => Err(error),
        };
        call.count(&result);
        call.finish(sink, requests, &result).await;
    });
}

/// An upload whose first request came, or which ended without one.
async fn admitted<M: OfRows<Row = CreateInvoiceRequest>>(
    call: &Call,
    first: Option<Request<M>>,
    requests: &mut Requests<M>,
    sink: &mut Results,
    needs_commit: Result<bool>,
) -> Result<()> {
    let needs_commit = needs_commit?;
    let watch = Watch::new(call);
    let upload = Upload::start(call, &watch.live)?;
    let work = async {
        let upload = take(call, upload, first, requests, &watch).await?;
        if !upload.is_committed() {
            if needs_commit {
                return Err(Error::Aborted("the upload ended without its commit".to_owned()));
            }
            settle(&call.shared.echoes, sink).await?;
        }
        let result = upload.create(cancelled(sink)).await?;
        send(call, sink, Encoded::of(&result)?, WriteFlags::default()).await
    };
    watch.guard(work).await
}

/// Takes all requests.
async fn take<M: OfRows<Row = CreateInvoiceRequest>>(
    call: &Call,
    mut upload: Upload,
    first: Option<Request<M>>,
    requests: &mut Requests<M>,
    watch: &Watch,
) -> Result<Upload> {
    let max_bytes = call.core.config.max_message_bytes;
    let mut next = first;
    while let Some(request) = next {
        upload.count(request.bytes())?;
        request.encoded(upload.what(), max_bytes, |message| upload.take::<M>(message))?;
        upload.make_room().await?;
        // An error is a call that is over.
        next =
            watch.idle.during(requests.next()).await.transpose().map_err(|_| Error::Cancelled)?;
        next.iter().for_each(|request| call.received(request.bytes()));
    }
    Ok(upload)
}

/// Waits until the news of a cancel must have come, if there was one; then looks for it. The end of
/// the requests and the cancel are two events of one moment, but the thread that reads the
/// connection may be held up between them: see [`Echoes`].
async fn settle(echoes: &Echoes, sink: &mut Results) -> Result<()> {
    echoes.call().await;
    Delay::new(SETTLE).await;
    match poll_fn(|cx| Poll::Ready(Pin::new(&mut *sink).poll_ready(cx))).await {
        Poll::Ready(Err(_)) => Err(Error::Cancelled),
        _ => Ok(()),
    }
}

/// Ready when the call is over.
async fn cancelled(sink: &mut Results) {
    poll_fn(|cx| match Pin::new(&mut *sink).poll_ready(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await
}
