-- Purpose: the first outcome of an event.
-- Parameters: :event_id.
-- Index: SEARCH reconcile_events USING PRIMARY KEY (event_id=?)
SELECT outcome, invoice_status, outstanding_cents, message
FROM reconcile_events
WHERE event_id = :event_id
