"""Calls every rpc with Python's grpcio and checks what comes back: client.py ADDR.

The server's database is empty at the start, and its limits are those of tests/interop.rs.
"""

import collections
import sys
import threading

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import report_pb2 as pb
from billing.v1 import report_pb2_grpc
from google.rpc import error_details_pb2 as details
from grpc_health.v1 import health_pb2  # noqa: F401: what clients have beside ours must not clash with it
from grpc_status import rpc_status

DEADLINE = 60  # seconds
ROWS = 1_000
CUSTOMERS = 10
DAY = 86_400
START = 1_700_000_000


def invoice(i, **fields):
    values = dict(
        invoice_id=f"inv-{i}",
        customer_id=f"cust-{i % CUSTOMERS}",
        total_amount_cents=100 * i,
        currency="EUR" if i % 2 else "USD",
        issued_at=Timestamp(seconds=START + i * DAY, nanos=i),
        memo=f"m\u00e9mo {i}",
    )
    return pb.CreateInvoiceRequest(**{**values, **fields})


def commit(batch_id, count):
    return pb.CreateInvoiceRequest(commit=pb.BulkCommit(batch_id=batch_id, count=count))


def event(event_id, i, cents, currency=None):
    return pb.ReconcileEvent(
        event_id=event_id,
        invoice_id=f"inv-{i}",
        amount_cents=cents,
        currency=currency or ("EUR" if i % 2 else "USD"),
        received_at=Timestamp(seconds=START),
        reference="ref",
    )


def expect(code, call):
    """Calls, and returns the error, which must have this code."""
    try:
        result = call()
    except grpc.RpcError as error:
        assert error.code() == code, f"expected {code}, not {error.code()}: {error.details()}"
        return error
    raise AssertionError(f"expected {code}, not a result: {result}")


def detail(error, kind):
    """The one detail of an error, a message of this kind."""
    # This holds the code and the message of the details to those of the call.
    status = rpc_status.from_call(error)
    assert len(status.details) == 1, status
    message = kind()
    assert status.details[0].Unpack(message), status
    return message


def bulk_create(stub):
    required = (("billstream-commit", "required"),)

    def upload(requests, metadata=()):
        return stub.BulkCreate(iter(requests), timeout=DEADLINE, metadata=metadata)

    requests = [invoice(i) for i in range(ROWS)]
    result = upload(requests + [commit("batch-1", ROWS)], required)
    assert result.created_count == ROWS and not result.already_applied, result
    assert (result.first_sequence, result.last_sequence) == (1, ROWS), result
    assert not result.HasField("total_cents"), "two currencies have no common total"
    assert [total.currency for total in result.totals] == ["EUR", "USD"]
    assert sum(total.total_cents for total in result.totals) == sum(100 * i for i in range(ROWS))

    again = upload(requests + [commit("batch-1", ROWS)], required)
    assert again.already_applied and again.first_sequence == 1 and again.created_count == ROWS
    assert list(again.totals) == list(result.totals)

    plain = upload([invoice(ROWS, invoice_id="")])
    assert plain.created_count == 1 and plain.total_cents == 100 * ROWS, plain

    expect(grpc.StatusCode.ABORTED, lambda: upload([invoice(5001), commit("batch-2", 2)]))
    expect(grpc.StatusCode.ABORTED, lambda: upload([invoice(5001)], required))
    taken = expect(grpc.StatusCode.ALREADY_EXISTS, lambda: upload([invoice(5001), invoice(7)]))
    assert "inv-7" in taken.details(), taken.details()
    too_many = (invoice(10_000 + i) for i in range(5_001))
    expect(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: upload(too_many))

    wrong = [invoice(5001), invoice(5002, currency="EURO", customer_id="")]
    invalid = expect(grpc.StatusCode.INVALID_ARGUMENT, lambda: upload(wrong))
    violations = detail(invalid, details.BadRequest).field_violations
    fields = {violation.field: violation.description for violation in violations}
    assert set(fields) == {"requests[1].currency", "requests[1].customer_id"}, fields
    assert all(fields.values()), fields
    return ROWS + 1


def get_summary(stub, rows):
    summary = stub.GetSummary(pb.SummaryRequest(), timeout=DEADLINE)
    assert summary.invoice_count == rows and summary.last_sequence == rows, summary
    for total in summary.totals:
        assert total.outstanding_cents == total.total_cents - total.paid_cents

    one = stub.GetSummary(pb.SummaryRequest(customer_id="cust-3"), timeout=DEADLINE)
    assert one.invoice_count == ROWS // CUSTOMERS, one
    days = dict(
        issued_from=Timestamp(seconds=START + 10 * DAY),
        issued_until=Timestamp(seconds=START + 20 * DAY),
    )
    some = stub.GetSummary(pb.SummaryRequest(**days), timeout=DEADLINE)
    assert some.invoice_count == 10, some

    backwards = pb.SummaryRequest(issued_from=days["issued_until"], issued_until=days["issued_from"])
    nothing_or_error(lambda: stub.GetSummary(backwards, timeout=DEADLINE))
    # Python refuses a string that is not UTF-8, so the bytes are sent as they are.
    raw = stub.channel.unary_unary("/billing.v1.ReportService/GetSummary")
    expect(grpc.StatusCode.INVALID_ARGUMENT, lambda: raw(b"\x0a\x02\xff\xfe", timeout=DEADLINE))


def nothing_or_error(call):
    """An empty range may be answered or refused, and nothing else."""
    try:
        assert call().invoice_count == 0
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error


def list_invoices(stub, rows):
    seen, request = [], pb.ListInvoicesRequest(page_size=30)
    while True:
        page = stub.ListInvoices(request, timeout=DEADLINE)
        seen += page.invoices
        if not page.next_page_token:
            break
        assert len(page.invoices) == 30
        request.page_token = page.next_page_token
    assert [row.sequence for row in seen] == list(range(1, rows + 1))
    row = seen[7]
    assert (row.invoice_id, row.customer_id, row.total_amount_cents) == ("inv-7", "cust-7", 700), row
    assert (row.currency, row.memo, row.status) == ("EUR", "m\u00e9mo 7", pb.INVOICE_STATUS_OPEN), row
    assert (row.issued_at.seconds, row.issued_at.nanos) == (START + 7 * DAY, 7), row
    assert seen[0].status == pb.INVOICE_STATUS_PAID, "an invoice of zero cents"

    large = stub.ListInvoices(pb.ListInvoicesRequest(page_size=1_000_000), timeout=DEADLINE)
    assert len(large.invoices) == 50, "max_page_size"
    other = pb.ListInvoicesRequest(customer_id="cust-1", page_token=large.next_page_token)
    refused = lambda: stub.ListInvoices(other, timeout=DEADLINE)
    invalid = expect(grpc.StatusCode.INVALID_ARGUMENT, refused)
    assert detail(invalid, details.BadRequest).field_violations[0].field == "page_token"
    return seen


def export(stub, seen):
    rows = list(stub.ExportInvoices(pb.ExportRequest(), timeout=DEADLINE))
    assert rows == seen
    batches = list(stub.ExportInvoiceBatches(pb.ExportRequest(), timeout=DEADLINE))
    assert [row for batch in batches for row in batch.invoices] == seen
    assert len(batches) < len(seen) / 10, "batches of many invoices"

    some = pb.ExportRequest(customer_id="cust-4", after_sequence=500, max_rows=20)
    expected = [row for row in seen if row.customer_id == "cust-4" and row.sequence > 500][:20]
    assert list(stub.ExportInvoices(some, timeout=DEADLINE)) == expected
    paid = pb.ExportRequest(statuses=[pb.INVOICE_STATUS_PAID])
    assert list(stub.ExportInvoices(paid, timeout=DEADLINE)) == seen[:1]

    wrong = pb.ExportRequest(after_sequence=-1)
    refused = lambda: list(stub.ExportInvoices(wrong, timeout=DEADLINE))
    invalid = expect(grpc.StatusCode.INVALID_ARGUMENT, refused)
    assert detail(invalid, details.BadRequest).field_violations[0].field == "after_sequence"

    call = stub.ExportInvoices(pb.ExportRequest(), timeout=DEADLINE)
    next(call)
    call.cancel()
    expect(grpc.StatusCode.CANCELLED, lambda: list(call))


def reconcile(stub):
    events = [
        (event("e1", 10, 400), pb.RECONCILE_OUTCOME_PARTIAL, 600),
        (event("e2", 10, 600), pb.RECONCILE_OUTCOME_SETTLED, 0),
        (event("e3", 10, 1), pb.RECONCILE_OUTCOME_OVERPAID, -1),
        (event("e4", 999_999, 1), pb.RECONCILE_OUTCOME_UNKNOWN_INVOICE, 0),
        (event("e5", 11, 1, "JPY"), pb.RECONCILE_OUTCOME_CURRENCY_MISMATCH, 1_100),
        (event("e6", 11, 0), pb.RECONCILE_OUTCOME_REJECTED, 0),
    ]
    acks = list(stub.Reconcile(iter(sent for sent, _, _ in events), timeout=DEADLINE))
    assert len(acks) == len(events)
    for ack, (sent, outcome, outstanding) in zip(acks, events):
        assert (ack.event_id, ack.outcome) == (sent.event_id, outcome), ack
        assert ack.outstanding_cents == outstanding and not ack.duplicate, ack
        assert bool(ack.message) == (outcome > pb.RECONCILE_OUTCOME_OVERPAID), ack

    again = list(stub.Reconcile(iter([event("e1", 10, 400)]), timeout=DEADLINE))
    assert again[0].duplicate and again[0].outcome == pb.RECONCILE_OUTCOME_PARTIAL, again

    # An acknowledgement comes while the events go on.
    gate = threading.Event()

    def one_by_one():
        yield event("e7", 12, 1)
        assert gate.wait(DEADLINE), "no acknowledgement came"
        yield event("e8", 12, 1)

    call = stub.Reconcile(one_by_one(), timeout=DEADLINE)
    assert next(call).event_id == "e7"
    gate.set()
    assert [ack.event_id for ack in call] == ["e8"]


def batches(stub, seen):
    """The two calls with many rows a message keep the promises of those with one."""
    required = (("billstream-commit", "required"),)

    def upload(*batches):
        requests = (pb.CreateInvoiceBatch(requests=batch) for batch in batches)
        return stub.BulkCreateBatches(requests, timeout=DEADLINE, metadata=required)

    rows = [invoice(i, invoice_id=f"batched-{i}") for i in range(1_000)]
    whole = (rows[:600], [], rows[600:], [commit("batched", len(rows))])
    first, again = upload(*whole), upload(*whole)
    assert first.created_count == len(rows) and not first.already_applied, first
    assert again.already_applied and again.first_sequence == first.first_sequence == len(seen) + 1, again
    wrong = expect(grpc.StatusCode.INVALID_ARGUMENT, lambda: upload(rows[:600], [invoice(0, currency="EURO")]))
    assert detail(wrong, details.BadRequest).field_violations[0].field == "requests[600].currency"

    def pay(*batches):
        requests = (pb.ReconcileEventBatch(events=batch) for batch in batches)
        return list(stub.ReconcileBatches(requests, timeout=DEADLINE))

    events = [event(f"batched-{i}", i, 1) for i in range(20, 30)]
    acks = pay(events[:4], [], events[4:] + events[:1])
    assert [len(batch.acks) for batch in acks] == [4, 0, 7], acks
    acks = [ack for batch in acks for ack in batch.acks]
    assert [ack.event_id for ack in acks] == [e.event_id for e in events + events[:1]], acks
    assert [ack.duplicate for ack in acks] == 10 * [False] + [True], acks


def ledger(stub):
    """What was applied is what is paid, and each page and cursor goes on where the one before ended."""
    whole = [e for batch in stub.ExportEvents(pb.ExportEventsRequest(), timeout=DEADLINE) for e in batch.events]
    assert [e.event_sequence for e in whole] == list(range(1, len(whole) + 1)), whole
    assert [e.event_id for e in whole][:5] == ["e1", "e2", "e3", "e7", "e8"], whole
    some = pb.ExportEventsRequest(after_event_sequence=3, max_events=2)
    assert [e for batch in stub.ExportEvents(some, timeout=DEADLINE) for e in batch.events] == whole[3:5]
    paid = collections.Counter()
    for e in whole:
        paid[e.invoice_id] += e.paid_change_cents
    for row in stub.ExportInvoices(pb.ExportRequest(), timeout=DEADLINE):
        assert row.paid_cents == paid[row.invoice_id], row

    request = pb.GetInvoiceRequest(invoice_id=whole[0].invoice_id, max_events=2)
    first = stub.GetInvoice(request, timeout=DEADLINE)
    assert list(first.events) == [whole[2], whole[1]] and first.invoice.paid_cents == 1001, first
    request.before_event_sequence = first.next_before_event_sequence
    second = stub.GetInvoice(request, timeout=DEADLINE)
    assert list(second.events) == [whole[0]] and second.next_before_event_sequence == 0, second
    expect(grpc.StatusCode.NOT_FOUND, lambda: stub.GetInvoice(pb.GetInvoiceRequest(invoice_id="none"), timeout=DEADLINE))


def limits(stub):
    """One stream more than the server admits is told when to come back."""
    gate = threading.Event()

    def held(event_id):
        yield event(event_id, 13, 1)
        gate.wait(DEADLINE)

    calls = [stub.Reconcile(held(f"held-{i}"), timeout=DEADLINE) for i in range(2)]
    for call in calls:
        next(call)
    refused = expect(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        lambda: list(stub.Reconcile(iter([event("refused", 13, 1)]), timeout=DEADLINE)),
    )
    delay = detail(refused, details.RetryInfo).retry_delay
    assert delay.ToMilliseconds() > 0, delay
    gate.set()
    for call in calls:
        assert list(call) == []


def compressed(stub):
    """A compressed message may have any size, and is refused without looking."""
    options = dict(compression=grpc.Compression.Gzip, timeout=DEADLINE)
    unimplemented = grpc.StatusCode.UNIMPLEMENTED
    expect(unimplemented, lambda: stub.GetSummary(pb.SummaryRequest(customer_id="c" * 128), **options))
    rows = (invoice(i, invoice_id=f"gzip-{i}") for i in range(ROWS))
    expect(unimplemented, lambda: stub.BulkCreate(rows, **options))


def deadline(stub):
    is_over = threading.Event()

    def nothing():
        is_over.wait(DEADLINE)
        yield from ()

    call = stub.Reconcile(nothing(), timeout=0.05)
    expect(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(call))
    is_over.set()


def main(addr):
    with grpc.insecure_channel(addr) as channel:
        stub = report_pb2_grpc.ReportServiceStub(channel)
        stub.channel = channel
        rows = bulk_create(stub)
        get_summary(stub, rows)
        seen = list_invoices(stub, rows)
        export(stub, seen)
        reconcile(stub)
        batches(stub, seen)
        ledger(stub)
        limits(stub)
        compressed(stub)
        deadline(stub)
    print(f"interop: Python {sys.version.split()[0]}, grpcio {grpc.__version__}: ten rpcs")


if __name__ == "__main__":
    main(sys.argv[1])
