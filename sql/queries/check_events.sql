-- Purpose: the events that do not follow from the ones before them, and the newest ones of invoices that do not say
--   so, the first :limit of them; none in a sound database. Each with what it has and what it should have: the event
--   before it, what is outstanding after it, and, where it is the newest, the newest event of the invoice and what is
--   paid. Events of an invoice that is there no more are held to each other alone.
-- Parameters: :limit. It reads every event, sorted: for `check` alone.
-- Index: SCAN reconcile_events
SELECT e.event_id, e.invoice_id,
       e.previous_event_sequence, e.before,
       e.outstanding_cents, iif(e.kind = 3, 0, i.total_amount_cents - e.paid_cents) AS outstanding,
       i.last_event_sequence, iif(e.next IS NULL, e.event_sequence, NULL) AS newest,
       i.paid_cents, iif(e.next IS NULL, e.paid_cents, NULL) AS paid
FROM (
    SELECT *,
           coalesce(lag(event_sequence) OVER history, 0) AS before,
           lead(event_sequence) OVER history AS next,
           sum(CASE kind WHEN 1 THEN amount_cents WHEN 2 THEN -amount_cents ELSE 0 END) OVER history AS paid_cents
    FROM reconcile_events
    WINDOW history AS (PARTITION BY invoice_id ORDER BY event_sequence)
) AS e
LEFT JOIN invoices AS i ON i.invoice_id = e.invoice_id
WHERE e.previous_event_sequence <> e.before
   OR e.outstanding_cents <> iif(e.kind = 3, 0, i.total_amount_cents - e.paid_cents)
   OR (e.next IS NULL AND (i.last_event_sequence <> e.event_sequence OR i.paid_cents <> e.paid_cents))
LIMIT :limit
