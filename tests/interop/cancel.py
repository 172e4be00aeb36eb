"""Cancels uploads at random moments: cancel.py ADDR SEED COUNT.

Prints a line an upload: CUSTOMER ENDING ROWS COMMIT_SENT HALF_CLOSED ACKNOWLEDGED, the last three
as 0 or 1. What is not marked as sent was never given to gRPC.
"""

import random
import sys
import threading
import time

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import report_pb2, report_pb2_grpc

ENDINGS = ("plain", "plain", "commit", "required")
DEADLINE = 60  # seconds


def invoice(customer, i):
    return report_pb2.CreateInvoiceRequest(
        invoice_id=f"{customer}-{i}",
        customer_id=customer,
        total_amount_cents=100 + i,
        currency="EUR",
        issued_at=Timestamp(seconds=1_700_000_000),
    )


class Upload:
    """The requests of one upload, up to the point where its client goes away."""

    def __init__(self, customer, rng):
        self.customer = customer
        self.ending = rng.choice(ENDINGS)
        self.rows = rng.randint(1, rng.choice((3, 30, 300)))
        self.stage = rng.choice(("part", "rows", "rows", "commit", "close"))
        self.sent = rng.randrange(self.rows) if self.stage == "part" else self.rows
        self.commit_sent = False
        self.half_closed = False
        self.is_acknowledged = False
        self.reached = threading.Event()
        self.is_over = threading.Event()

    def requests(self):
        for i in range(self.sent):
            yield invoice(self.customer, i)
        if self.ending != "plain" and self.stage in ("commit", "close"):
            self.commit_sent = True
            commit = report_pb2.BulkCommit(batch_id=self.customer, count=self.rows)
            yield report_pb2.CreateInvoiceRequest(commit=commit)
        if self.stage == "close":
            self.half_closed = True
            self.reached.set()
            return
        self.reached.set()
        # The call is over before this ends, so gRPC never sends the end of the requests.
        assert self.is_over.wait(DEADLINE), "the call was not cancelled"

    def run(self, stub, rng):
        metadata = (("billstream-commit", "required"),) if self.ending == "required" else ()
        call = stub.BulkCreate.future(self.requests(), metadata=metadata, timeout=DEADLINE)
        # A third of them are cancelled on their way.
        if rng.random() < 0.67:
            assert self.reached.wait(DEADLINE), "the requests were not taken"
        time.sleep(rng.random() * rng.random() * 0.003)
        # False when the result came first.
        call.cancel()
        self.is_acknowledged = not call.cancelled() and call.code() == grpc.StatusCode.OK
        self.is_over.set()

    def line(self):
        flags = (self.commit_sent, self.half_closed, self.is_acknowledged)
        return " ".join([self.customer, self.ending, str(self.rows), *(str(int(flag)) for flag in flags)])


def main(addr, seed, count):
    rng = random.Random(seed)
    with grpc.insecure_channel(addr) as channel:
        stub = report_pb2_grpc.ReportServiceStub(channel)
        uploads = []
        for i in range(count):
            upload = Upload(f"Python-{i}", rng)
            upload.run(stub, rng)
            uploads.append(upload)
    # Only now: a request may have been taken after its call was cancelled.
    for upload in uploads:
        print(upload.line())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
