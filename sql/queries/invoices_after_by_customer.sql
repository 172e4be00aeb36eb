-- Purpose: encodes the invoices of one customer after a cursor, in the order of `sequence`, as
--   invoices_after_filtered does: it gives a row for every invoice of the customer.
-- Parameters: :customer_id, and those of invoices_after_filtered.
-- Index: SEARCH invoices USING INDEX invoices_by_customer (customer_id=? AND rowid>? AND rowid<?)
SELECT CASE WHEN (:statuses >> status) & 1
             AND (issued_at, issued_at_nanos) >= (:from, :from_nanos)
             AND (issued_at, issued_at_nanos) < (:before, :before_nanos)
       THEN push_invoice(sequence, invoice_id, customer_id, total_amount_cents, currency, status,
                         paid_cents, issued_at, issued_at_nanos, memo)
       ELSE sequence END
FROM invoices INDEXED BY invoices_by_customer
WHERE customer_id = :customer_id
  AND sequence > :after AND sequence <= :until
ORDER BY sequence
