"""Asks a server for its health and for what it serves, with Python's own clients, and calls it by what they say.

health.py ADDR [CA [CERT KEY]]: with files of certificates it comes by TLS. The server has three invoices.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

DEADLINE = 60  # seconds
SERVICE = "billing.v1.ReportService"


def connect(addr, ca=None, cert=None, key=None):
    if ca is None:
        return grpc.insecure_channel(addr)
    read = lambda path: open(path, "rb").read() if path else None
    return grpc.secure_channel(addr, grpc.ssl_channel_credentials(read(ca), read(key), read(cert)))


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ["", SERVICE]:
        request = health_pb2.HealthCheckRequest(service=service)
        assert stub.Check(request, timeout=DEADLINE).status == serving
        watch = stub.Watch(request, timeout=DEADLINE)
        assert next(watch).status == serving
        watch.cancel()
    request = health_pb2.HealthCheckRequest(service="unknown")
    try:
        stub.Check(request, timeout=DEADLINE)
        raise AssertionError("a service that is unknown has a status")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    watch = stub.Watch(request, timeout=DEADLINE)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
    print("health: Check and Watch")
    if hasattr(stub, "List"):
        statuses = stub.List(health_pb2.HealthListRequest(), timeout=DEADLINE).statuses
        assert {name: it.status for name, it in statuses.items()} == {"": serving, SERVICE: serving}
        print("health: List")


def reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    services = list(database.get_services())
    assert SERVICE in services and "grpc.health.v1.Health" in services, services
    pool = descriptor_pool.DescriptorPool(database)
    for name in services:
        assert pool.FindServiceByName(name).methods, name
    method = pool.FindServiceByName(SERVICE).FindMethodByName("GetSummary")
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{SERVICE}/GetSummary",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    assert call(request(), timeout=DEADLINE).invoice_count == 3
    for find in [pool.FindServiceByName, pool.FindMessageTypeByName, pool.FindFileByName]:
        try:
            find("no.such.thing")
            raise AssertionError("what is not there was found")
        except KeyError:
            pass
    print(f"reflection: {services}, and GetSummary by what it says")


def main():
    with connect(*sys.argv[1:]) as channel:
        health(channel)
        reflection(channel)


main()
