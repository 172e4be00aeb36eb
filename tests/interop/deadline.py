"""Exports that end at their client's deadline: deadline.py ADDR CALLS.

Every one must end with DEADLINE_EXCEEDED, whichever timer rings first.
"""

import collections
import sys

import grpc

from billing.v1 import report_pb2 as pb
from billing.v1 import report_pb2_grpc


def main():
    address, calls = sys.argv[1], int(sys.argv[2])
    channel = grpc.insecure_channel(address)
    service = report_pb2_grpc.ReportServiceStub(channel)
    service.GetSummary(pb.SummaryRequest(), wait_for_ready=True)
    ends = collections.Counter()
    for i in range(calls):
        timeout = (10 + i % 31) / 1000
        try:
            for _ in service.ExportInvoiceBatches(pb.ExportRequest(), timeout=timeout):
                pass
            ends["OK"] += 1
        except grpc.RpcError as error:
            ends[error.code().name] += 1
    print(f"{calls} exports with deadlines of 10 to 40 ms: {dict(ends)}")
    assert set(ends) <= {"DEADLINE_EXCEEDED", "OK"} and ends["DEADLINE_EXCEEDED"], ends


main()
