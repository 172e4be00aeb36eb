-- Purpose: encodes every event after a cursor, in the order of `event_sequence` (`store::encode`). As many as
--   are wanted: it is stepped no further.
-- Parameters: :after, :until (included).
-- Index: SEARCH reconcile_events USING INTEGER PRIMARY KEY
SELECT push_event(event_sequence, event_id, invoice_id, kind, amount_cents, currency, received_at,
                  received_at_nanos, reference, outcome, invoice_status, outstanding_cents)
FROM reconcile_events
WHERE event_sequence > :after AND event_sequence <= :until
ORDER BY event_sequence
