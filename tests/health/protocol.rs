//! What the two protocols ask of a server.

use billstream::proto::health::health_check_response::ServingStatus::*;
use billstream::proto::reflection::server_reflection_request::Message_request::{self, *};
use billstream::proto::reflection::server_reflection_response::Message_response::{self, *};
use billstream::proto::reflection::ExtensionRequest;
use billstream::{Config, Server};
use grpcio::RpcStatusCode;
use protobuf::descriptor::{FileDescriptorProto, ServiceDescriptorProto};
use protobuf::Message;

use crate::client::{Asker, V1, V1ALPHA};
use crate::common::http2::{request_headers, Frame, Http2, DATA, END_STREAM, HEADERS};
use crate::common::*;

const SERVICE: &str = "billing.v1.ReportService";

#[test]
fn a_service_has_a_status_and_an_unknown_one_has_none() {
    let mut server = TestServer::start(Config::default());
    let asker = Asker::new(&server.addr());
    for service in ["", SERVICE] {
        assert_eq!(asker.check(service).unwrap(), SERVING);
        assert_eq!(asker.watch(service).next().unwrap(), SERVING);
    }
    assert_status(asker.check("no.such.Service"), RpcStatusCode::NOT_FOUND, "no such service");
    assert_eq!(asker.list(), [(String::new(), SERVING), (SERVICE.to_owned(), SERVING)]);
    // It goes on, for the day on which the service is known.
    let mut unknown = asker.watch("no.such.Service");
    assert_eq!(unknown.next().unwrap(), SERVICE_UNKNOWN);
    server.stop();
    assert_status(unknown.next(), RpcStatusCode::UNAVAILABLE, "shutting down");
}

fn error_code(response: Message_response) -> i32 {
    match response {
        ErrorResponse(error) => error.error_code,
        other => panic!("{other:?}"),
    }
}

/// The names of the files of an answer.
fn files(response: &Message_response) -> Vec<String> {
    let FileDescriptorResponse(response) = response else { panic!("{response:?}") };
    let decoded = response.file_descriptor_proto.iter();
    let decoded = decoded.map(|file| FileDescriptorProto::parse_from_bytes(file).unwrap());
    decoded.map(|file| file.name().to_owned()).collect()
}

#[test]
fn reflection_finds_files_by_all_that_is_in_them() {
    let server = TestServer::start(Config::default());
    let asker = Asker::new(&server.addr());
    let report = ["billing/v1/report.proto", "google/protobuf/timestamp.proto"];
    let of_report = [
        FileByFilename(report[0].to_owned()),
        FileContainingSymbol(SERVICE.to_owned()),
        FileContainingSymbol(format!("{SERVICE}.GetSummary")),
        FileContainingSymbol("billing.v1.Invoice".to_owned()),
        FileContainingSymbol("billing.v1.Invoice.memo".to_owned()),
    ];
    for version in [V1, V1ALPHA] {
        for answer in asker.reflect(version, of_report.clone().map(Some)).unwrap() {
            assert_eq!(files(&answer), report);
        }
        let own = format!("{}.ServerReflectionRequest", version[1..].rsplit_once('.').unwrap().0);
        let answers = asker.reflect(version, [Some(FileContainingSymbol(own))]).unwrap();
        let expected = version[1..].replace('.', "/").replace("/ServerReflection/", "/");
        let expected = expected.replace("ServerReflectionInfo", "reflection.proto");
        assert_eq!(files(&answers[0]), [expected]);
    }
    let extensions = AllExtensionNumbersOfType("billing.v1.Invoice".to_owned());
    let answers = asker.reflect(V1, [Some(extensions)]).unwrap();
    let AllExtensionNumbersResponse(none) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!((&none.base_type_name[..], none.extension_number.len()), ("billing.v1.Invoice", 0));
}

#[test]
fn what_is_not_there_is_not_found_and_the_stream_goes_on() {
    let server = TestServer::start(Config::default());
    let asker = Asker::new(&server.addr());
    let extension = |containing_type: &str| ExtensionRequest {
        containing_type: containing_type.to_owned(),
        extension_number: 1,
        ..Default::default()
    };
    let unknown: [Message_request; 6] = [
        FileByFilename("report.proto".to_owned()),
        FileContainingSymbol("billing.v1.Unknown".to_owned()),
        FileContainingSymbol(String::new()),
        FileContainingExtension(extension("billing.v1.Invoice")),
        FileContainingExtension(extension("billing.v1.Unknown")),
        AllExtensionNumbersOfType("billing.v1.Unknown".to_owned()),
    ];
    let codes = asker.reflect(V1, unknown.map(Some)).unwrap().into_iter().map(error_code);
    assert_eq!(codes.collect::<Vec<_>>(), [i32::from(RpcStatusCode::NOT_FOUND); 6]);
    let nothing = asker.reflect(V1, [None]).unwrap().remove(0);
    assert_eq!(error_code(nothing), i32::from(RpcStatusCode::INVALID_ARGUMENT));
}

#[test]
fn a_request_that_is_too_large_or_none_ends_its_call() {
    let server = TestServer::start(Config::default());
    let asker = Asker::new(&server.addr());
    let large = "x".repeat(65 << 10);
    assert_status(asker.check(&large), RpcStatusCode::RESOURCE_EXHAUSTED, "the limit is 65536");
    let symbol = FileContainingSymbol(large);
    let refused = asker.reflect(V1, [Some(symbol)]);
    assert_status(refused, RpcStatusCode::RESOURCE_EXHAUSTED, "the limit is 65536");
    for method in [crate::client::CHECK, V1] {
        let mut http2 = Http2::connect(&server.addr());
        http2.open(1, method).unwrap();
        http2.send(&Frame::new(DATA, END_STREAM, 1, [0, 0, 0, 0, 1, 0xff])).unwrap();
        let is_end = |frame: &Frame| frame.kind == HEADERS && frame.flags & END_STREAM != 0;
        let end = http2.receive_until(is_end).unwrap();
        assert_eq!(end.grpc_status(), Some(3), "{:?}", request_headers(method)[2]);
    }
}

fn services(asker: &Asker) -> Vec<String> {
    let answers = asker.reflect(V1, [Some(ListServices(String::new()))]).unwrap();
    let ListServicesResponse(response) = &answers[0] else { panic!("{answers:?}") };
    response.service.iter().map(|service| service.name.clone()).collect()
}

#[test]
fn an_embedder_adds_the_files_of_its_services() {
    let dir = tempfile::tempdir().unwrap();
    let listen = vec!["127.0.0.1:0".to_owned()];
    let config = Config { db: dir.path().join("bills.db"), listen, ..Config::default() };
    let mut service = ServiceDescriptorProto::new();
    service.set_name("Mine".to_owned());
    let mut file = FileDescriptorProto::new();
    file.set_name("mine.proto".to_owned());
    file.set_package("app".to_owned());
    file.service = vec![service];
    let server = Server::builder(config).descriptors([file]).start().unwrap();
    let asker = Asker::new(&server.addr().to_string());
    let expected = [
        "app.Mine",
        "billing.v1.AdminService",
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(services(&asker), expected);
    server.shutdown().unwrap();
}

#[test]
fn reflection_can_be_turned_off() {
    let server = TestServer::start(Config { reflection: false, ..Config::default() });
    let asker = Asker::new(&server.addr());
    for version in [V1, V1ALPHA] {
        let refused = asker.reflect(version, [Some(ListServices(String::new()))]);
        assert_status(refused, RpcStatusCode::UNIMPLEMENTED, "");
    }
    assert_eq!(asker.check("").unwrap(), SERVING);
}
