//! Server reflection, `grpc.reflection.v1` and `v1alpha`: what a server serves, for clients without its proto
//! files.

use std::pin::Pin;
use std::sync::Arc;

use futures::Sink;
use grpcio::{
    DuplexSink, Method, MethodType, RpcContext, RpcStatusCode, Service, ServiceBuilder, WriteFlags,
};
use protobuf::descriptor::FileDescriptorProto;
use protobuf::reflect::FileDescriptor;

use crate::proto::reflection::server_reflection_request::Message_request;
use crate::proto::reflection::server_reflection_response::Message_response;
use crate::proto::reflection::{
    self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

use super::calls::{Call, Calls, End, Requests};
use super::files::Files;
use super::wire::{self, Received};
use super::Limits;

type Info = Method<Received<ServerReflectionRequest>, ServerReflectionResponse>;

const V1: Info =
    wire::method(MethodType::Duplex, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
/// Its messages are those of v1.
const V1ALPHA: Info = wire::method(
    MethodType::Duplex,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
);

/// What a server tells of the files of its services.
#[derive(Clone)]
pub struct Reflection {
    files: Arc<Files>,
    calls: Calls,
}

impl Reflection {
    /// Of the services in `files`, and of its own two. Where two files have one name, the first counts.
    pub fn new(limits: Limits, files: impl IntoIterator<Item = FileDescriptorProto>) -> Reflection {
        let v1 = reflection::file_descriptor().proto().clone();
        let own = [v1.clone(), v1alpha(v1)];
        let files = Arc::new(Files::new(files.into_iter().chain(own)));
        Reflection { files, calls: Calls::new(limits) }
    }

    /// Ends every call with UNAVAILABLE. To be called when the server stops.
    pub fn close(&self) {
        self.calls.close();
    }

    /// The services of both versions, to be registered with a gRPC server.
    pub fn service(&self) -> Service {
        let (v1, v1alpha) = (self.clone(), self.clone());
        ServiceBuilder::new()
            .add_duplex_streaming_handler(&V1, move |ctx, requests, sink| {
                v1.serve(ctx, requests, sink);
            })
            .add_duplex_streaming_handler(&V1ALPHA, move |ctx, requests, sink| {
                v1alpha.serve(ctx, requests, sink);
            })
            .build()
    }

    fn serve(
        &self,
        ctx: RpcContext<'_>,
        mut requests: Requests<ServerReflectionRequest>,
        mut sink: DuplexSink<ServerReflectionResponse>,
    ) {
        let (mut call, files) = (self.calls.open(&ctx), Arc::clone(&self.files));
        ctx.spawn(async move {
            let result = converse(&files, &mut call, &mut requests, &mut sink).await;
            call.finish(sink, requests, result).await;
        });
    }
}

/// A file of generated code with all that it imports, itself first.
pub fn with_imports(file: &FileDescriptor) -> Vec<FileDescriptorProto> {
    let mut found: Vec<&FileDescriptor> = vec![file];
    let mut next = 0;
    while let Some(file) = found.get(next) {
        let new = file.deps().iter().filter(|it| found.iter().all(|old| old.name() != it.name()));
        let new: Vec<_> = new.collect();
        found.extend(new);
        next += 1;
    }
    found.into_iter().map(|file| file.proto().clone()).collect()
}

/// The file of v1 under the names of v1alpha.
fn v1alpha(mut file: FileDescriptorProto) -> FileDescriptorProto {
    let rename = |name: &mut Option<String>| {
        if let Some(name) = name {
            *name = name.replacen("reflection.v1", "reflection.v1alpha", 1);
        }
    };
    rename(&mut file.package);
    file.name = file.name.map(|name| name.replacen("/v1/", "/v1alpha/", 1));
    file.message_type.iter_mut().for_each(|message| {
        message.field.iter_mut().for_each(|field| rename(&mut field.type_name));
    });
    for method in file.service.iter_mut().flat_map(|service| &mut service.method) {
        rename(&mut method.input_type);
        rename(&mut method.output_type);
    }
    file
}

/// Answers one request after the other: the next is read when the client has room for the answer to the last.
async fn converse(
    files: &Files,
    call: &mut Call,
    requests: &mut Requests<ServerReflectionRequest>,
    sink: &mut DuplexSink<ServerReflectionResponse>,
) -> Result<(), End> {
    let mut is_first = true;
    while let Some(request) = call.message(requests).await? {
        if std::mem::take(&mut is_first) {
            call.enter()?;
        }
        let response = ServerReflectionResponse {
            valid_host: request.host.clone(),
            message_response: Some(respond(files, &request)),
            original_request: Some(request).into(),
            ..ServerReflectionResponse::default()
        };
        let sent = Pin::new(&mut *sink).start_send((response, WriteFlags::default()));
        sent.map_err(|_| End::Gone)?;
        call.room(sink).await?;
    }
    Ok(())
}

fn respond(files: &Files, request: &ServerReflectionRequest) -> Message_response {
    use Message_request::*;
    let answer = match &request.message_request {
        Some(FileByFilename(name)) => files.by_name(name).map(of_files),
        Some(FileContainingSymbol(symbol)) => files.by_symbol(symbol).map(of_files),
        Some(FileContainingExtension(it)) => {
            files.by_extension(&it.containing_type, it.extension_number).map(of_files)
        }
        Some(AllExtensionNumbersOfType(name)) => files.extensions(name).map(|numbers| {
            Message_response::AllExtensionNumbersResponse(ExtensionNumberResponse {
                base_type_name: name.clone(),
                extension_number: numbers,
                ..ExtensionNumberResponse::default()
            })
        }),
        Some(ListServices(_)) => Some(of_services(files.services())),
        None => return error(RpcStatusCode::INVALID_ARGUMENT, "there is no known message_request"),
    };
    answer.unwrap_or_else(|| error(RpcStatusCode::NOT_FOUND, "there is no such thing in the files"))
}

fn of_files(file_descriptor_proto: Vec<Vec<u8>>) -> Message_response {
    Message_response::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto,
        ..FileDescriptorResponse::default()
    })
}

fn of_services(names: &[String]) -> Message_response {
    let named = |name: &String| ServiceResponse { name: name.clone(), ..Default::default() };
    Message_response::ListServicesResponse(ListServiceResponse {
        service: names.iter().map(named).collect(),
        ..ListServiceResponse::default()
    })
}

fn error(code: RpcStatusCode, why: &str) -> Message_response {
    Message_response::ErrorResponse(ErrorResponse {
        error_code: code.into(),
        error_message: why.to_owned(),
        ..ErrorResponse::default()
    })
}
