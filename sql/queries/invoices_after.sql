-- Purpose: encodes every invoice after a cursor, in the order of `sequence` (`store::encode`). As many as
--   are wanted: it is stepped no further.
-- Parameters: :after, :until (included).
-- Index: SEARCH invoices USING INTEGER PRIMARY KEY
SELECT push_invoice(sequence, invoice_id, customer_id, total_amount_cents, currency, status,
                    paid_cents, issued_at, issued_at_nanos, memo)
FROM invoices
WHERE sequence > :after AND sequence <= :until
ORDER BY sequence
