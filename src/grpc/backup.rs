//! Backup on gRPC: the side of the client, which takes the chunks as fast as its flow control lets it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures::Sink;
use grpcio::{DuplexSink, RpcContext, WriteFlags};

use crate::calls::backup::Backup;
use crate::calls::watch::Watch;
use crate::error::{Error, Result};
use crate::grpc::call::{send, Call, Requests};
use crate::grpc::codec::{Encoded, Request};
use crate::grpc::Shared;
use crate::method::Method;
use crate::proto::admin::{BackupChunk, BackupRequest};

type Messages = DuplexSink<Encoded>;

pub fn backup(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    mut requests: Requests<BackupRequest>,
    mut sink: Messages,
) {
    let call = Call::new(shared, &ctx, Method::Backup);
    sink.set_headers(call.headers(None));
    ctx.spawn(async move {
        let request = call.only(&mut call.core.sweep.place(), &mut requests, "the request").await;
        let result = match request.and_then(|request| start(&call, request)) {
            Ok((backup, watch)) => {
                Box::pin(watch.guard(flow(&call, &mut sink, backup, &watch))).await
            }
            Err(error) => Err(error),
        };
        call.count(&result);
        call.finish(sink, requests, &result).await;
    });
}

fn start(call: &Call, request: Request<BackupRequest>) -> Result<(Backup, Watch)> {
    request.message("BackupRequest", call.core.config.filter_bytes())?;
    let watch = Watch::new(call);
    Ok((Backup::start(call, watch.stop.clone())?, watch))
}

/// Sends every chunk. The backup ends with this.
async fn flow(call: &Call, sink: &mut Messages, mut backup: Backup, watch: &Watch) -> Result<()> {
    while let Some(chunk) = next(sink, &mut backup).await? {
        // One that the client takes at once does not wait in the sink for the next.
        let chunk = Encoded::of(&chunk)?;
        watch.stall.during(send(call, sink, chunk, WriteFlags::default())).await?;
    }
    backup.end()
}

/// The next chunk; [`Error::Cancelled`] when the call is over before it.
async fn next(sink: &mut Messages, backup: &mut Backup) -> Result<Option<BackupChunk>> {
    poll_fn(|cx| {
        if let Poll::Ready(chunk) = backup.poll_next(cx) {
            return Poll::Ready(Ok(chunk));
        }
        // Room in the sink is of no interest here, only the news that the call is over.
        match Pin::new(&mut *sink).poll_ready(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(Error::Cancelled)),
            _ => Poll::Pending,
        }
    })
    .await
}
