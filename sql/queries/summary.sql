-- Purpose: the totals of all invoices, by currency, each with the highest `sequence` and
--   `event_sequence` that were given. Without
--   invoices one row, of no currency.
-- Parameters: none.
-- Index: SCAN currency_totals
SELECT currency, invoice_count, total_cents, paid_cents, last_sequence, last_event_sequence
FROM ledger LEFT JOIN currency_totals
WHERE id = 1
ORDER BY currency
