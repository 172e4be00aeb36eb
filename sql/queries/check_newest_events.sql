-- Purpose: the invoices whose newest event is none of theirs, or that have none and are paid, the first :limit of them;
--   none in a sound database.
-- Parameters: :limit. It reads every invoice: for `check` alone.
-- Index: SCAN i
SELECT i.invoice_id, i.last_event_sequence, i.paid_cents
FROM invoices AS i LEFT JOIN reconcile_events AS e ON e.event_sequence = i.last_event_sequence
WHERE iif(i.last_event_sequence = 0, i.paid_cents <> 0, e.invoice_id IS NOT i.invoice_id)
LIMIT :limit
