-- Purpose: encodes the invoices of some statuses and dates after a cursor, in the order of `sequence`.
--   The `+` keeps the planner from the index on dates, which would have to sort.
-- Parameters: :after, :until (included), :limit (-1: none), :statuses (bit 1 << status),
--   :from, :from_nanos, :before, :before_nanos.
-- Index: SEARCH invoices USING INTEGER PRIMARY KEY
SELECT push_invoice(sequence, invoice_id, customer_id, total_amount_cents, currency, status,
                    paid_cents, issued_at, issued_at_nanos, memo)
FROM invoices
WHERE sequence > :after AND sequence <= :until
  AND (:statuses >> status) & 1
  AND (+issued_at, issued_at_nanos) >= (:from, :from_nanos)
  AND (+issued_at, issued_at_nanos) < (:before, :before_nanos)
ORDER BY sequence
LIMIT :limit
