-- Purpose: applied events: what they did, and their outcomes, with the number of each in the array.
-- Parameters: :event_ids, an array.
-- Index: SEARCH e USING INDEX reconcile_events_by_event_id (event_id=?)
SELECT a.rowid, e.invoice_id, e.amount_cents, e.currency, e.outcome, e.invoice_status, e.outstanding_cents, e.kind
FROM rarray(:event_ids) AS a
CROSS JOIN reconcile_events AS e ON e.event_id = a.value
