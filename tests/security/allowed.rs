//! Whoever is on the list: by which names, and where.

use std::sync::Arc;

use billstream::grpcio::{
    CallOption, ChannelBuilder, ChannelCredentialsBuilder, Client, EnvBuilder, Marshaller, Method,
    MethodType, RpcStatusCode, Service, ServiceBuilder,
};
use billstream::proto::report::SummaryRequest;
use billstream::{Config, Server};

use crate::common::assert_status;
use crate::{call, port, Guarded};

#[test]
fn a_client_is_known_by_each_name_of_its_certificate() {
    let guarded = Guarded::new();
    let allowed = ["by common name", "dns.example", "spiffe://example/uri", "127.0.0.9"];
    let tls_allowed_clients = allowed.map(str::to_owned).to_vec();
    let config = Config { tls_allowed_clients, ..guarded.mutual() };
    let server = Server::start(config).unwrap();
    let addr = port(&server);
    assert_eq!(call(&addr, &guarded.options("by common name", &["other.example"])), Ok(0));
    for name in &allowed[1..] {
        assert_eq!(call(&addr, &guarded.options("x", &["a.example", name, "urn:b"])), Ok(0));
    }
    // Letter by letter, and no name within another.
    for name in ["DNS.example", "dns.example.org", "*.example", "spiffe://example/uri/more"] {
        assert!(call(&addr, &guarded.options("x", &[name])).is_err(), "{name}");
    }
}

/// Who may open the file may call.
#[test]
fn a_socket_file_has_no_tls() {
    let guarded = Guarded::new();
    let socket = format!("unix:{}", guarded.dir.path().join("bills.sock").display());
    let tls_allowed_clients = vec!["nobody".to_owned()];
    let listen = vec!["127.0.0.1:0".to_owned(), socket.clone()];
    let config = Config { tls_allowed_clients, listen, ..guarded.mutual() };
    let server = Server::start(config).unwrap();
    assert_eq!(call(&socket, &Default::default()), Ok(0));
    assert!(call(&port(&server), &guarded.options("somebody", &[])).is_err());
}

/// A method of another service, with messages of ours.
const OTHER: Method<SummaryRequest, SummaryRequest> = Method {
    ty: MethodType::Unary,
    name: "/test.Other/Call",
    req_mar: Marshaller { ser: grpcio::pb_ser, de: grpcio::pb_de },
    resp_mar: Marshaller { ser: grpcio::pb_ser, de: grpcio::pb_de },
};

fn other() -> Service {
    let service = ServiceBuilder::new().add_unary_handler(&OTHER, |ctx, request, sink| {
        // An error is a call that is over already.
        ctx.spawn(async { drop(sink.success(request).await) });
    });
    service.build()
}

#[test]
fn the_list_holds_for_a_service_beside_ours() {
    let guarded = Guarded::new();
    let tls_allowed_clients = vec!["friend".to_owned()];
    let config = Config { tls_allowed_clients, ..guarded.mutual() };
    let server = Server::builder(config).service(other()).start().unwrap();
    let answer = |name: &str| {
        let pair = guarded.authority.issue(name, &[]);
        let credentials = ChannelCredentialsBuilder::new()
            .root_cert(guarded.authority.pem())
            .cert(pair.cert, pair.key);
        let channel = ChannelBuilder::new(Arc::new(EnvBuilder::new().cq_count(1).build()))
            .use_local_subchannel_pool(true)
            .set_credentials(credentials.build());
        let client = Client::new(channel.connect(&port(&server)));
        let options = CallOption::default().timeout(crate::common::DEADLINE);
        client.unary_call(&OTHER, &SummaryRequest::default(), options)
    };
    assert!(answer("friend").is_ok());
    assert_status(answer("foe"), RpcStatusCode::PERMISSION_DENIED, "this client is not allowed");
}
