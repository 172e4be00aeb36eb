-- Purpose: encodes the events of an invoice before one of them, newest first (`store::encode`), each with that
--   before it. It is stepped no further than wanted: each step follows one event to the one before it. Where
--   :before is no event of the invoice, all that are newer are passed over.
-- Parameters: :invoice_id, :before (an `event_sequence`).
-- Index: SEARCH e USING INTEGER PRIMARY KEY (rowid=?)
WITH RECURSIVE history (event_sequence) AS (
    SELECT coalesce((SELECT previous_event_sequence FROM reconcile_events
                     WHERE event_sequence = :before AND invoice_id = :invoice_id),
                    (SELECT last_event_sequence FROM invoices WHERE invoice_id = :invoice_id))
    UNION ALL
    SELECT e.previous_event_sequence
    FROM history AS h CROSS JOIN reconcile_events AS e ON e.event_sequence = h.event_sequence
)
SELECT CASE WHEN e.event_sequence < :before
       THEN push_event(e.event_sequence, event_id, invoice_id, kind, amount_cents, currency, received_at,
                       received_at_nanos, reference, outcome, invoice_status, outstanding_cents)
       END,
       previous_event_sequence
FROM history AS h CROSS JOIN reconcile_events AS e ON e.event_sequence = h.event_sequence
