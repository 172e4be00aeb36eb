-- Purpose: the customers whose kept totals are not those of their rows, each with a currency, the first
--   :limit of them; none in a sound database.
-- Parameters: :limit. It reads every invoice: for `check` alone, of a database of schema version 1 or 2.
-- Index: SCAN invoices
SELECT customer_id, currency FROM (
    SELECT customer_id, currency, count(*) AS invoice_count, sum(total_amount_cents) AS total_cents,
           sum(paid_cents) AS paid_cents
    FROM invoices GROUP BY customer_id, currency
    EXCEPT
    SELECT customer_id, currency, invoice_count, total_cents, paid_cents FROM customer_totals
)
UNION
SELECT customer_id, currency FROM (
    SELECT customer_id, currency, invoice_count, total_cents, paid_cents FROM customer_totals
    EXCEPT
    SELECT customer_id, currency, count(*), sum(total_amount_cents), sum(paid_cents)
    FROM invoices GROUP BY customer_id, currency
)
LIMIT :limit
