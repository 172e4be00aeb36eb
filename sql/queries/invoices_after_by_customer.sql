-- Purpose: encodes the invoices of one customer after a cursor, in the order of `sequence`, with the
--   filter of invoices_after_filtered.
-- Parameters: :customer_id, and those of invoices_after_filtered.
-- Index: SEARCH invoices USING INDEX invoices_by_customer (customer_id=? AND rowid>? AND rowid<?)
SELECT push_invoice(sequence, invoice_id, customer_id, total_amount_cents, currency, status,
                    paid_cents, issued_at, issued_at_nanos, memo)
FROM invoices INDEXED BY invoices_by_customer
WHERE customer_id = :customer_id
  AND sequence > :after AND sequence <= :until
  AND (:statuses >> status) & 1
  AND (+issued_at, issued_at_nanos) >= (:from, :from_nanos)
  AND (+issued_at, issued_at_nanos) < (:before, :before_nanos)
ORDER BY sequence
LIMIT :limit
