-- Purpose: encodes the invoices of some statuses and dates after a cursor, in the order of `sequence`. It
--   gives a row for every invoice: NULL for one that it encoded, else the `sequence`, so that who steps it
--   knows how far it is where nothing matches.
-- Parameters: :after, :until (included), :statuses (bit 1 << status), :from, :from_nanos, :before,
--   :before_nanos.
-- Index: SEARCH invoices USING INTEGER PRIMARY KEY
SELECT CASE WHEN (:statuses >> status) & 1
             AND (issued_at, issued_at_nanos) >= (:from, :from_nanos)
             AND (issued_at, issued_at_nanos) < (:before, :before_nanos)
       THEN push_invoice(sequence, invoice_id, customer_id, total_amount_cents, currency, status,
                         paid_cents, issued_at, issued_at_nanos, memo)
       ELSE sequence END
FROM invoices
WHERE sequence > :after AND sequence <= :until
ORDER BY sequence
