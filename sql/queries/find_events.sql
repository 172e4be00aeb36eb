-- Purpose: applied events: what they paid, and their outcomes, with the number of each in the array.
-- Parameters: :event_ids, an array.
-- Index: SEARCH e USING PRIMARY KEY (event_id=?)
SELECT a.rowid, e.invoice_id, e.amount_cents, e.currency, e.outcome, e.invoice_status, e.outstanding_cents
FROM rarray(:event_ids) AS a
CROSS JOIN reconcile_events AS e ON e.event_id = a.value
