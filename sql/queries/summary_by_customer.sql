-- Purpose: the totals of one customer's invoices, by currency.
-- Parameters: :customer_id.
-- Index: SEARCH customer_totals USING PRIMARY KEY (customer_id=?)
SELECT currency, invoice_count, total_cents, paid_cents, credit_note_count, credit_note_cents, void_count,
       void_cents, credit_note_paid_cents
FROM customer_totals
WHERE customer_id = :customer_id
ORDER BY currency
