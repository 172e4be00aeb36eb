//! Another blocking source through another service: a thread reads the lines of a file at the speed of the
//! client, 16 ahead, and ends when the client leaves. `cargo run --release --example stream_blocking`

use std::{fs, io, io::BufRead, sync::Arc, thread};

use billstream::grpcio::{self, EnvBuilder, Marshaller, Method, MethodType, ServiceBuilder};
use billstream::grpcio::{RpcContext, RpcStatus, RpcStatusCode, ServerStreamingSink};
use billstream::protobuf::well_known_types::wrappers::StringValue;
use billstream::{bridge, Config, Server};
use futures::{SinkExt, StreamExt, TryStreamExt};

const TEXT: Marshaller<StringValue> = Marshaller { ser: grpcio::pb_ser, de: grpcio::pb_de };
const LINES: Method<StringValue, StringValue> = Method {
    ty: MethodType::ServerStreaming,
    name: "/example.Files/Lines",
    req_mar: TEXT,
    resp_mar: TEXT,
};

/// On a thread of gRPC, which must not block: the file is read on another one.
fn lines(ctx: RpcContext, path: StringValue, mut sink: ServerStreamingSink<StringValue>) {
    let (sender, mut lines) = bridge::bounded::<io::Result<String>>(16);
    thread::spawn(move || match fs::File::open(path.value) {
        // Each send waits for room. It fails when the receiver was dropped: then the thread ends.
        Ok(file) => io::BufReader::new(file).lines().try_for_each(|l| bridge::wait(sender.send(l))),
        Err(error) => bridge::wait(sender.send(Err(error))),
    });
    ctx.spawn(async move {
        while let Some(line) = lines.next().await {
            let value = match line {
                Ok(value) => value,
                Err(e) => {
                    let status = RpcStatus::with_message(RpcStatusCode::UNKNOWN, e.to_string());
                    return drop(sink.fail(status).await);
                }
            };
            let line = StringValue { value, ..Default::default() };
            // An error is a client that has left.
            let Ok(()) = sink.send((line, Default::default())).await else { return };
        }
        drop(sink.close().await);
    });
}

#[rustfmt::skip]
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let config = Config { db: dir.path().join("bills.db"), ..Config::default() };
    let files = ServiceBuilder::new().add_server_streaming_handler(&LINES, lines).build();
    let server = Server::builder(config).listen(["127.0.0.1:0"]).service(files).start()?;
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let client = grpcio::Client::new(grpcio::ChannelBuilder::new(env).connect(&server.addr().to_string()));
    let path = StringValue { value: "Cargo.lock".to_owned(), ..Default::default() };
    let received = client.server_streaming(&LINES, &path, Default::default())?.map_ok(|line| line.value);
    let received: Vec<String> = bridge::wait(received.try_collect())?;
    assert!(received.iter().map(String::as_str).eq(fs::read_to_string("Cargo.lock")?.lines()));
    println!("{} lines; {}", received.len(), server.shutdown()?);
    Ok(())
}
