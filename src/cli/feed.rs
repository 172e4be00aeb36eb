//! Messages to a stream, sent on the thread of its connection.
//!
//! A command reads rows on a thread of its own and hands them over through a [`billstream::bridge`]; the
//! future that takes them is spawned on the connection's thread, as that of an export is. A message that is
//! sent from another thread costs two switches between the two: it would wait there for each to be taken.

use futures::{Sink, SinkExt};
use grpcio::WriteFlags;

/// Messages that may wait for the connection's thread.
pub const AHEAD: usize = 1024;

/// The most messages between two flushes: enough to fill large frames, few enough to notice soon that the
/// server has ended the call.
pub const CHUNK: usize = 256;

/// Sends `messages` in frames as large as can be. A failure only says that the call is over; how it ended
/// is the receiver's to tell.
pub async fn feed<M>(
    sink: &mut (impl Sink<(M, WriteFlags), Error = grpcio::Error> + Unpin),
    messages: impl IntoIterator<Item = M>,
) -> grpcio::Result<()> {
    for message in messages {
        sink.feed((message, WriteFlags::default())).await?;
    }
    sink.flush().await
}
