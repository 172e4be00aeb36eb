-- Purpose: the totals of one customer's invoices, by currency.
-- Parameters: :customer_id.
-- Index: SEARCH customer_totals USING PRIMARY KEY (customer_id=?)
SELECT currency, invoice_count, total_cents, paid_cents
FROM customer_totals
WHERE customer_id = :customer_id
ORDER BY currency
