-- Purpose: the totals of the invoices of a range of dates, by currency.
-- Parameters: :from, :from_nanos, :before, :before_nanos.
-- Index: SEARCH invoices USING INDEX invoices_by_issued_at
SELECT currency, count(*), sum(total_amount_cents), sum(paid_cents)
FROM invoices INDEXED BY invoices_by_issued_at
WHERE (issued_at, issued_at_nanos) >= (:from, :from_nanos)
  AND (issued_at, issued_at_nanos) < (:before, :before_nanos)
GROUP BY currency
ORDER BY currency
