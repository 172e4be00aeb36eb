-- Purpose: the invoices whose status is not that of their amounts (the table is at InvoiceStatus in the proto), the
--   first :limit of them; none in a sound database.
-- Parameters: :limit. It reads every invoice: for `check` alone.
-- Index: SCAN invoices
SELECT invoice_id, status, total_amount_cents, paid_cents
FROM invoices
WHERE status <> CASE
    WHEN iif(total_amount_cents < 0, paid_cents > 0, paid_cents < 0) THEN 0
    WHEN status = 5 THEN iif(paid_cents = 0, 5, 0)
    WHEN paid_cents = total_amount_cents THEN 3
    WHEN paid_cents = 0 THEN 1
    WHEN iif(total_amount_cents < 0, paid_cents > total_amount_cents, paid_cents < total_amount_cents) THEN 2
    ELSE 4
END
LIMIT :limit
