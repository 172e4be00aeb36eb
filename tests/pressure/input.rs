//! What the largest messages cost in memory, whatever is in them.

use billstream::grpc::methods::{BULK_CREATE, LIST_INVOICES, RECONCILE};
use billstream::proto::report::{BulkResult, ListInvoicesResponse};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, ChannelBuilder, EnvBuilder, WriteFlags};

use crate::common::*;
use crate::support::*;

/// The largest message, by default.
const MAX_BYTES: usize = 4 << 20;

/// Sends `bytes` as a message to one method of each kind; how the calls end is not the question.
fn send(client: &grpcio::Client, bytes: &[u8]) {
    let message = || (bytes.to_vec(), WriteFlags::default());
    let options = || CallOption::default().timeout(DEADLINE);
    let _ =
        client.unary_call::<_, ListInvoicesResponse>(&raw(&LIST_INVOICES), &message().0, options());
    let (mut sink, result) =
        client.client_streaming::<_, BulkResult>(&raw(&BULK_CREATE), options()).unwrap();
    block_on(async {
        let _ = sink.send(message()).await;
        let _ = sink.close().await;
        let _ = result.await;
    });
    let (mut sink, mut acks) = client.duplex_streaming(&raw(&RECONCILE), options()).unwrap();
    block_on(async {
        let _ = sink.send(message()).await;
        let _ = sink.close().await;
        while let Some(Ok(_)) = acks.next().await {}
    });
}

/// The bound is 64 MiB a message; gRPC's own buffers are in it.
#[test]
fn no_message_within_the_limits_takes_much_memory() {
    let _alone = alone();
    let server = Process::with_copy(&database(10_000), &[]);
    let env = std::sync::Arc::new(EnvBuilder::new().cq_count(1).build());
    let client = grpcio::Client::new(ChannelBuilder::new(env).connect(&server.addr));
    // The first calls bring what every call needs.
    send(&client, &[]);
    let head = |tag: u8| [tag, 0xf0, 0xff, 0xff, 1];
    let fields: &[&[u8]] = &[
        &[0x10, 9],          // a status of a list
        &[0x78, 1],          // unknown, a number
        &[0x7a, 0],          // unknown, bytes
        &[0x2a, 0],          // a time
        &[0x80, 0xf8, 1, 1], // unknown, a large number of a field
    ];
    let repeated = fields.iter().map(|field| field.repeat(MAX_BYTES / field.len()));
    // One field that takes all there is: a currency to be quoted, a memo, a time, packed statuses.
    let single =
        [0x22, 0x32, 0x2a, 0x12].map(|tag| [&head(tag)[..], &[1; MAX_BYTES - 16]].concat());
    for bytes in repeated.chain(single) {
        let before = server.rss_mib();
        server.forget_peak();
        send(&client, &bytes);
        let peak = server.peak_rss_mib();
        println!("{:02x?}: from {before} to {peak} MiB", &bytes[..4]);
        assert!(peak < before + 64, "{:02x?}: from {before} to {peak} MiB", &bytes[..4]);
    }
}
