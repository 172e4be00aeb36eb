-- Purpose: the currencies whose kept totals are not those of the rows; none in a sound database.
-- Parameters: none. It reads every invoice: for `check` alone, of a database of schema version 1 or 2.
-- Index: SCAN invoices
SELECT currency FROM (
    SELECT currency, count(*) AS invoice_count, sum(total_amount_cents) AS total_cents,
           sum(paid_cents) AS paid_cents
    FROM invoices GROUP BY currency
    EXCEPT SELECT currency, invoice_count, total_cents, paid_cents FROM currency_totals
)
UNION
SELECT currency FROM (
    SELECT currency, invoice_count, total_cents, paid_cents FROM currency_totals
    EXCEPT
    SELECT currency, count(*), sum(total_amount_cents), sum(paid_cents)
    FROM invoices GROUP BY currency
)
