-- Purpose: the totals of all invoices, by currency, each with the highest `sequence`. Without totals
--   there is no invoice, and no sequence.
-- Parameters: none.
-- Index: SCAN currency_totals
SELECT currency, invoice_count, total_cents, paid_cents, (SELECT coalesce(max(sequence), 0) FROM invoices)
FROM currency_totals
ORDER BY currency
