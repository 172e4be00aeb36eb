-- Purpose: an applied event: what it paid, and its outcome.
-- Parameters: :event_id.
-- Index: SEARCH reconcile_events USING PRIMARY KEY (event_id=?)
SELECT invoice_id, amount_cents, currency, outcome, invoice_status, outstanding_cents
FROM reconcile_events
WHERE event_id = :event_id
