-- Purpose: the same as summary_by_date of one customer's invoices.
-- Parameters: :customer_id, :from, :from_nanos, :before, :before_nanos.
-- Index: SEARCH invoices USING INDEX invoices_by_customer (customer_id=?)
SELECT currency, total_amount_cents, paid_cents, status
FROM invoices INDEXED BY invoices_by_customer
WHERE customer_id = :customer_id
  AND (issued_at, issued_at_nanos) >= (:from, :from_nanos)
  AND (issued_at, issued_at_nanos) < (:before, :before_nanos)
