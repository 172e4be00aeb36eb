//! An embedder's own service and own threads.

use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex};

use billstream::grpcio::{
    CallOption, ChannelBuilder, Client, EnvBuilder, Environment, GrpcSlice, Marshaller,
    MessageReader, Method, MethodType, RpcStatusCode, Service, ServiceBuilder,
};
use billstream::server::Stopped;
use billstream::{Error, Server};
use futures::executor::block_on;
use futures::StreamExt;

use crate::common::*;
use crate::config;

/// Bytes in and out: the codec of an embedder without protobuf.
const ECHO: Method<Vec<u8>, Vec<u8>> = Method {
    ty: MethodType::Unary,
    name: "/test.Own/Echo",
    req_mar: Marshaller { ser: write, de: read },
    resp_mar: Marshaller { ser: write, de: read },
};
const WAIT: Method<Vec<u8>, Vec<u8>> = Method {
    ty: MethodType::Duplex,
    name: "/test.Own/Wait",
    req_mar: Marshaller { ser: write, de: read },
    resp_mar: Marshaller { ser: write, de: read },
};

#[allow(clippy::ptr_arg)] // What a `Marshaller` takes.
fn write(bytes: &Vec<u8>, to: &mut GrpcSlice) -> billstream::grpcio::Result<()> {
    *to = GrpcSlice::from(bytes.clone());
    Ok(())
}

fn read(mut from: MessageReader) -> billstream::grpcio::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut from, &mut bytes).unwrap();
    Ok(bytes)
}

/// A service that calls `on_call` on its completion-queue thread, before it answers.
fn echo(on_call: impl Fn() + Clone + Send + 'static) -> Service {
    ServiceBuilder::new()
        .add_unary_handler(&ECHO, move |ctx, bytes, sink| {
            on_call();
            // An error is a call that is over already.
            ctx.spawn(async { drop(sink.success(bytes).await) });
        })
        .build()
}

/// A service whose calls wait for their clients.
fn waiting(opened: Sender<()>) -> Service {
    ServiceBuilder::new()
        .add_duplex_streaming_handler(&WAIT, move |ctx, mut requests, mut sink| {
            opened.send(()).unwrap();
            ctx.spawn(async move {
                while let Some(Ok(_)) = requests.next().await {}
                let _ = futures::SinkExt::close(&mut sink).await;
            });
        })
        .build()
}

fn client(addr: &str) -> Client {
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    Client::new(ChannelBuilder::new(env).use_local_subchannel_pool(true).connect(addr))
}

fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

#[test]
fn an_own_service_is_served_beside_ours_on_own_threads() {
    let dir = tempfile::tempdir().unwrap();
    let env = Arc::new(EnvBuilder::new().cq_count(2).name_prefix("own-cq").build());
    let (names, threads) = channel();
    let service =
        echo(move || names.send(std::thread::current().name().map(str::to_owned)).unwrap());
    let server = Server::builder(config(dir.path()))
        .service(service)
        .environment(Arc::clone(&env))
        .start()
        .unwrap();
    let addr = server.addr().to_string();
    let answer = client(&addr).unary_call(&ECHO, &b"own".to_vec(), options()).unwrap();
    assert_eq!(answer, b"own");
    assert!(threads.recv().unwrap().unwrap().starts_with("own-cq"));
    let ours = billstream::client::Stub::new(&addr);
    assert_eq!(upload(&ours, [invoice("a", 1)]).unwrap().created_count, 1);
    assert_eq!(summary(&ours).invoice_count, 1);
    server.shutdown().unwrap();
    // The threads are the embedder's, and go on.
    let again = Server::builder(config(dir.path())).environment(env).start().unwrap();
    assert_eq!(summary(&billstream::client::Stub::new(&again.addr().to_string())).invoice_count, 1);
}

#[test]
fn calls_of_an_own_service_have_the_time_of_a_drain() {
    let dir = tempfile::tempdir().unwrap();
    let config = billstream::Config { drain_timeout_ms: 600_000, ..config(dir.path()) };
    let (opened, calls) = channel();
    let server = Server::builder(config).service(waiting(opened)).start().unwrap();
    let client = client(&server.addr().to_string());
    let (mut requests, mut answers) = client.duplex_streaming(&WAIT, options()).unwrap();
    calls.recv_timeout(DEADLINE).unwrap();
    let stopping = std::thread::spawn(move || server.shutdown());
    // By then it does not take new calls, and the one that is open goes on.
    eventually("the stop begins", || {
        let refused = client.unary_call(&ECHO, &Vec::new(), options());
        status(refused).code() == RpcStatusCode::UNAVAILABLE
    });
    assert!(!stopping.is_finished());
    block_on(half_close(&mut requests));
    assert_eq!(block_on(answers.next()).map(|answer| answer.is_ok()), None);
    stopping.join().unwrap().unwrap();
}

/// The slot that a handler takes the server out of.
type Slot = Arc<Mutex<Option<Server>>>;

/// Starts a server whose own service calls `stop` with the server; makes one call.
fn stopped_by_a_handler(
    env: Option<Arc<Environment>>,
    stop: impl Fn(Server) + Clone + Send + 'static,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let slot = Slot::default();
    let of_handler = Arc::clone(&slot);
    let service = echo(move || {
        let server = of_handler.lock().unwrap().take();
        server.into_iter().for_each(&stop);
    });
    // A thread that panicked answers nobody, and is waited for that long.
    let config = billstream::Config { drain_timeout_ms: 500, ..config(dir.path()) };
    let mut builder = Server::builder(config).service(service);
    if let Some(env) = env {
        builder = builder.environment(env);
    }
    let server = builder.start().unwrap();
    let addr = server.addr().to_string();
    *slot.lock().unwrap() = Some(server);
    // It is answered, or ended by the stop or the panic.
    let _ = client(&addr).unary_call(&ECHO, &Vec::new(), options());
    dir
}

/// A database that can be served again was given free.
fn assert_free(dir: &tempfile::TempDir) {
    eventually("the database is free", || Server::start(config(dir.path())).is_ok());
}

#[test]
fn a_stop_on_a_completion_queue_thread_goes_on_without_it() {
    let (reports, stopped) = channel();
    let stop = move |server: Server| reports.send(server.shutdown()).unwrap();
    let dir = stopped_by_a_handler(None, stop);
    assert_eq!(stopped.recv_timeout(DEADLINE).unwrap(), Ok(Stopped::default()));
    assert_free(&dir);
}

#[test]
fn a_stop_on_an_own_completion_queue_thread_does_too() {
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let dir = stopped_by_a_handler(Some(Arc::clone(&env)), drop);
    assert_free(&dir);
}

#[test]
fn a_server_that_is_dropped_by_a_panic_of_a_handler_stops() {
    let dir = stopped_by_a_handler(None, |_server| panic!("a handler of an embedder panics"));
    assert_free(&dir);
}

#[test]
fn a_start_on_a_thread_that_is_to_serve_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    let of_handler = Arc::downgrade(&env);
    let (errors, refused) = channel();
    let path = dir.path().join("second");
    std::fs::create_dir(&path).unwrap();
    let service = echo(move || {
        let builder = Server::builder(config(&path)).environment(of_handler.upgrade().unwrap());
        errors.send(builder.start().err()).unwrap();
    });
    let server = Server::builder(config(dir.path())).environment(env).service(service);
    let server = server.start().unwrap();
    client(&server.addr().to_string()).unary_call(&ECHO, &Vec::new(), options()).unwrap();
    let error = refused.recv().unwrap();
    assert!(matches!(error, Some(Error::Unusable(_))), "{error:?}");
}
