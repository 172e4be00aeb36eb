"""Uploads invoices with Python's own gRPC: bulk.py ADDR ROWS BATCH.

BATCH is the rows of a message of BulkCreateBatches; 0 is BulkCreate. Prints rows a second.
"""

import sys
import time

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import report_pb2, report_pb2_grpc

ISSUED_AT = Timestamp(seconds=1_700_000_000)


def invoices(prefix, rows):
    for i in range(rows):
        yield report_pb2.CreateInvoiceRequest(
            invoice_id=f"{prefix}-{i}",
            customer_id=f"cust-{i % 1000}",
            total_amount_cents=100 + i,
            currency="EUR",
            issued_at=ISSUED_AT,
            memo="made by bulk.py",
        )


def batches(requests, size):
    batch = []
    for request in requests:
        batch.append(request)
        if len(batch) == size:
            yield report_pb2.CreateInvoiceBatch(requests=batch)
            batch = []
    if batch:
        yield report_pb2.CreateInvoiceBatch(requests=batch)


def main():
    addr, rows, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with grpc.insecure_channel(addr) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        stub = report_pb2_grpc.ReportServiceStub(channel)
        start = time.monotonic()
        requests = invoices(f"python-{size}", rows)
        if size:
            result = stub.BulkCreateBatches(batches(requests, size))
        else:
            result = stub.BulkCreate(requests)
        assert result.created_count == rows, result
        print(rows / (time.monotonic() - start))


main()
