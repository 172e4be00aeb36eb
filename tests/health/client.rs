//! A client of health and reflection, with the messages that the server has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use billstream::proto::health::health_check_response::ServingStatus;
use billstream::proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use billstream::proto::reflection::server_reflection_request::Message_request;
use billstream::proto::reflection::server_reflection_response::Message_response;
use billstream::proto::reflection::{ServerReflectionRequest, ServerReflectionResponse};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{
    CallOption, Channel, ChannelBuilder, Client, ClientSStreamReceiver, EnvBuilder, GrpcSlice,
    Marshaller, MessageReader, Method, MethodType, WriteFlags,
};
use protobuf::Message;

use crate::common::DEADLINE;

pub const CHECK: &str = "/grpc.health.v1.Health/Check";
pub const LIST: &str = "/grpc.health.v1.Health/List";
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";
pub const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

fn method<Q: Message, P: Message>(ty: MethodType, name: &'static str) -> Method<Q, P> {
    fn ser<M: Message>(message: &M, buffer: &mut GrpcSlice) -> grpcio::Result<()> {
        grpcio::pb_ser(message, buffer)
    }
    fn de<M: Message>(reader: MessageReader) -> grpcio::Result<M> {
        grpcio::pb_de(reader)
    }
    let (req_mar, resp_mar) = (Marshaller { ser, de }, Marshaller { ser, de });
    Method { ty, name, req_mar, resp_mar }
}

pub fn options() -> CallOption {
    CallOption::default().timeout(DEADLINE)
}

/// One connection.
pub struct Asker(pub Client);

pub fn channel(addr: &str) -> Channel {
    let env = Arc::new(EnvBuilder::new().cq_count(1).build());
    ChannelBuilder::new(env).use_local_subchannel_pool(true).connect(addr)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned(), ..Default::default() }
}

impl Asker {
    pub fn new(addr: &str) -> Asker {
        Asker(Client::new(channel(addr)))
    }

    pub fn check(&self, service: &str) -> grpcio::Result<ServingStatus> {
        let method = method(MethodType::Unary, CHECK);
        let response: HealthCheckResponse = self.0.unary_call(&method, &of(service), options())?;
        Ok(response.status.unwrap())
    }

    pub fn list(&self) -> Vec<(String, ServingStatus)> {
        let method = method(MethodType::Unary, LIST);
        let response: HealthListResponse =
            self.0.unary_call(&method, &HealthListRequest::new(), options()).unwrap();
        let mut all: Vec<_> =
            response.statuses.into_iter().map(|(name, it)| (name, it.status.unwrap())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub fn watch(&self, service: &str) -> Watch {
        let method = method(MethodType::ServerStreaming, WATCH);
        let statuses = self.0.server_streaming(&method, &of(service), options()).unwrap();
        Watch { statuses, _connection: self.0.clone() }
    }

    /// Sends `requests` on one stream, and takes an answer to each.
    pub fn reflect(
        &self,
        version: &'static str,
        requests: impl IntoIterator<Item = Option<Message_request>>,
    ) -> grpcio::Result<Vec<Message_response>> {
        let method: Method<ServerReflectionRequest, ServerReflectionResponse> =
            method(MethodType::Duplex, version);
        let (mut sink, mut answers) = self.0.duplex_streaming(&method, options())?;
        block_on(async {
            let mut all = Vec::new();
            for message_request in requests {
                let request = ServerReflectionRequest {
                    host: "a host".to_owned(),
                    message_request,
                    ..Default::default()
                };
                sink.send((request.clone(), WriteFlags::default())).await?;
                let answer = answers.next().await.unwrap()?;
                assert_eq!(answer.original_request.as_ref(), Some(&request));
                assert_eq!(answer.valid_host, "a host");
                all.push(answer.message_response.unwrap());
            }
            // The server may have ended the call before this has.
            let _ = sink.close().await;
            assert!(answers.next().await.is_none(), "the stream ends OK");
            Ok(all)
        })
    }
}

/// A Watch that is open until it is dropped.
pub struct Watch {
    statuses: ClientSStreamReceiver<HealthCheckResponse>,
    /// Which ends when nobody has it.
    _connection: Client,
}

impl Watch {
    /// The next status, or the end.
    pub fn next(&mut self) -> grpcio::Result<ServingStatus> {
        let next = block_on(self.statuses.next()).expect("a Watch does not end OK");
        next.map(|response| response.status.unwrap())
    }

    /// Waits for `status` alone; how long it took.
    pub fn turns(&mut self, status: ServingStatus) -> Duration {
        let start = Instant::now();
        assert_eq!(self.next().unwrap(), status);
        start.elapsed()
    }
}
