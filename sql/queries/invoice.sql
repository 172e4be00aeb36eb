-- Purpose: encodes one invoice (`store::encode`); no row where there is none.
-- Parameters: :invoice_id.
-- Index: SEARCH invoices USING INDEX sqlite_autoindex_invoices_1 (invoice_id=?)
SELECT push_invoice(sequence, invoice_id, customer_id, total_amount_cents, currency, status,
                    paid_cents, issued_at, issued_at_nanos, memo)
FROM invoices
WHERE invoice_id = :invoice_id
