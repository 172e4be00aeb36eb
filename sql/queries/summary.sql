-- Purpose: the totals of all invoices, by currency.
-- Parameters: none.
-- Index: SCAN currency_totals
SELECT currency, invoice_count, total_cents, paid_cents
FROM currency_totals
ORDER BY currency
