-- Purpose: what is to be summed of the invoices of a range of dates, a row each (`store::summary::sums`; a
--   GROUP BY would sort them all).
-- Parameters: :from, :from_nanos, :before, :before_nanos.
-- Index: SEARCH invoices USING INDEX invoices_by_issued_at
SELECT currency, total_amount_cents, paid_cents, status
FROM invoices INDEXED BY invoices_by_issued_at
WHERE (issued_at, issued_at_nanos) >= (:from, :from_nanos)
  AND (issued_at, issued_at_nanos) < (:before, :before_nanos)
