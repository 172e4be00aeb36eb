-- Purpose: the currencies whose kept totals are not those of the rows; none in a sound database.
-- Parameters: none. It reads every invoice: for `check` alone.
-- Index: SCAN invoices
WITH sums AS (
    SELECT currency, count(*) AS invoice_count, sum(total_amount_cents) AS total_cents, sum(paid_cents) AS paid_cents,
           sum(total_amount_cents < 0) AS credit_note_count, sum(min(total_amount_cents, 0)) AS credit_note_cents,
           sum(status = 5) AS void_count, sum(iif(status = 5, total_amount_cents, 0)) AS void_cents,
           sum(iif(total_amount_cents < 0, paid_cents, 0)) AS credit_note_paid_cents
    FROM invoices GROUP BY currency
)
SELECT currency FROM (SELECT * FROM sums EXCEPT SELECT * FROM currency_totals)
UNION
SELECT currency FROM (SELECT * FROM currency_totals EXCEPT SELECT * FROM sums)
