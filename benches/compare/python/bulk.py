"""Uploads invoices with Python's own gRPC: bulk.py ADDR ROWS BATCH...

Each BATCH is an upload: its messages are made before the clock starts, with so many rows in a message of
BulkCreateBatches; 0 is BulkCreate, a row a message. Prints a line for each: rows a second, and the share of the
time that was after the last message was taken, in which the server creates the invoices.
"""

import sys
import time

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import report_pb2, report_pb2_grpc

ISSUED_AT = Timestamp(seconds=1_700_000_000)


def invoice(prefix, i):
    return report_pb2.CreateInvoiceRequest(
        invoice_id=f"{prefix}-{i}",
        customer_id=f"cust-{i % 1000}",
        total_amount_cents=100 + i,
        currency="EUR",
        issued_at=ISSUED_AT,
        memo="made by bulk.py",
    )


def upload(stub, rows, size):
    messages = [invoice(f"python-{size}", i) for i in range(rows)]
    call = stub.BulkCreate
    if size:
        call = stub.BulkCreateBatches
        starts = range(0, rows, size)
        messages = [report_pb2.CreateInvoiceBatch(requests=messages[i : i + size]) for i in starts]
    taken = None

    def requests():
        nonlocal taken
        yield from messages
        taken = time.monotonic()

    start = time.monotonic()
    result = call(requests())
    end = time.monotonic()
    assert result.created_count == rows, result
    print(rows / (end - start), (end - taken) / (end - start))


def main():
    addr, rows, sizes = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    with grpc.insecure_channel(addr) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        stub = report_pb2_grpc.ReportServiceStub(channel)
        for size in sizes:
            upload(stub, rows, int(size))


main()
