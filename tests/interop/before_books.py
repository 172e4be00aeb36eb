"""A client of before credit notes, refunds and voids: before_books.py ADDR STEP, with the stubs of that time.

The step `calls` is all that its tests called then, with an empty database; the step `books` is after `make_books` of
tests/interop.rs, by a client of today.
"""

import sys

import grpc

import client
from billing.v1 import report_pb2 as pb
from billing.v1 import report_pb2_grpc

DEADLINE = 60  # seconds
CUSTOMER = "books"
# What ReconcileOutcome has had no name for.
EXCEEDS_PAID = 10


def calls(stub):
    rows = client.bulk_create(stub)
    client.get_summary(stub, rows)
    seen = client.list_invoices(stub, rows)
    client.export(stub, seen)
    client.reconcile(stub)
    client.batches(stub, seen)
    client.limits(stub)
    client.compressed(stub)
    client.deadline(stub)
    print("interop: all that a client of before credit notes, refunds and voids calls")


def row(invoice):
    return invoice.invoice_id, invoice.total_amount_cents, invoice.paid_cents, invoice.status


EXPECTED = [
    ("note-1", -500, -200, pb.INVOICE_STATUS_PARTIALLY_PAID),
    ("bill-1", 1_000, 250, pb.INVOICE_STATUS_PARTIALLY_PAID),
    ("bill-2", 300, 0, pb.INVOICE_STATUS_VOID),
]


def summary(stub):
    summary = stub.GetSummary(pb.SummaryRequest(customer_id=CUSTOMER), timeout=DEADLINE)
    (total,) = summary.totals
    assert (total.currency, total.invoice_count, summary.invoice_count) == ("CHF", 3, 3), summary
    assert (total.total_cents, total.paid_cents) == (800, 50), summary
    # Of the void one nothing is outstanding.
    assert total.outstanding_cents == 450, summary


def list_invoices(stub):
    seen, request = [], pb.ListInvoicesRequest(customer_id=CUSTOMER, page_size=1)
    while not seen or request.page_token:
        page = stub.ListInvoices(request, timeout=DEADLINE)
        seen += page.invoices
        request.page_token = page.next_page_token
    assert [row(invoice) for invoice in seen] == EXPECTED, seen
    return seen


def export(stub, seen):
    request = pb.ExportRequest(customer_id=CUSTOMER)
    assert list(stub.ExportInvoices(request, timeout=DEADLINE)) == seen
    batches = list(stub.ExportInvoiceBatches(request, timeout=DEADLINE))
    assert [invoice for batch in batches for invoice in batch.invoices] == seen
    request.after_sequence = seen[0].sequence
    assert list(stub.ExportInvoices(request, timeout=DEADLINE)) == seen[1:]
    void = pb.ExportRequest(statuses=[pb.INVOICE_STATUS_VOID])
    assert list(stub.ExportInvoices(void, timeout=DEADLINE)) == seen[2:]


def event(event_id, invoice_id, cents):
    event = pb.ReconcileEvent(event_id=event_id, invoice_id=invoice_id, amount_cents=cents, currency="CHF")
    event.received_at.GetCurrentTime()
    return event


def reconcile(stub):
    """What it sends are payments; the one answer that it has no name for is a number, with a message."""
    assert EXCEEDS_PAID not in pb.ReconcileOutcome.values(), "these stubs are not those of before"
    cases = [
        # Of its own: an invoice with a refund, one that is void, and a credit note.
        (event("old-1", "bill-1", 750), pb.RECONCILE_OUTCOME_SETTLED, 0, False),
        (event("old-2", "bill-2", 300), pb.RECONCILE_OUTCOME_INVOICE_VOID, 0, False),
        (event("old-3", "note-1", 50), pb.RECONCILE_OUTCOME_PARTIAL, -350, False),
        (event("old-4", "note-1", 151), EXCEEDS_PAID, -350, False),
        # Under the ids of others: the same payment, and what was a refund and a void.
        (event("new-1", "bill-1", 400), pb.RECONCILE_OUTCOME_PARTIAL, 600, True),
        (event("new-2", "bill-1", 150), pb.RECONCILE_OUTCOME_EVENT_ID_REUSED, 0, False),
        (event("new-4", "bill-2", 300), pb.RECONCILE_OUTCOME_EVENT_ID_REUSED, 0, False),
    ]
    one_by_one = list(stub.Reconcile(iter(sent for sent, *_ in cases), timeout=DEADLINE))
    # Again, as after a lost connection: what was applied is, and the rest is refused again.
    batch = pb.ReconcileEventBatch(events=[sent for sent, *_ in cases])
    (again,) = stub.ReconcileBatches(iter([batch]), timeout=DEADLINE)
    for ack, repeated, (sent, outcome, outstanding, duplicate) in zip(one_by_one, again.acks, cases, strict=True):
        is_applied = outcome <= pb.RECONCILE_OUTCOME_OVERPAID
        assert (ack.event_id, ack.outcome, ack.outstanding_cents) == (sent.event_id, outcome, outstanding), ack
        assert ack.duplicate == duplicate and bool(ack.message) != is_applied, ack
        assert (repeated.outcome, repeated.duplicate) == (outcome, is_applied), repeated
        assert repeated.outstanding_cents == outstanding, repeated


def books(stub):
    summary(stub)
    export(stub, list_invoices(stub))
    reconcile(stub)
    print("interop: it reads them, and pays beside them")


def main(addr, step):
    with grpc.insecure_channel(addr) as channel:
        stub = report_pb2_grpc.ReportServiceStub(channel)
        stub.channel = channel
        {"calls": calls, "books": books}[step](stub)


if __name__ == "__main__":
    main(*sys.argv[1:])
