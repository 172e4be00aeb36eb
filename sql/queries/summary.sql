-- Purpose: the totals of all invoices, by currency, each with the highest `sequence` and `event_sequence` that
--   were given. Without invoices one row, of no currency.
-- Parameters: none.
-- Index: SCAN currency_totals
SELECT last_sequence, last_event_sequence, currency, invoice_count, total_cents, paid_cents, credit_note_count,
       credit_note_cents, void_count, void_cents, credit_note_paid_cents
FROM ledger LEFT JOIN currency_totals
WHERE id = 1
ORDER BY currency
