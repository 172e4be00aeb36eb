-- Purpose: remembers an applied event with its outcome.
-- Parameters: the columns, in their order; for each further row, which the writer adds, again.
INSERT INTO reconcile_events (event_sequence, previous_event_sequence, event_id, invoice_id, kind, amount_cents,
                              currency, received_at, received_at_nanos, reference, outcome, invoice_status,
                              outstanding_cents)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
