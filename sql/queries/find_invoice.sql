-- Purpose: what a payment needs to know of its invoice.
-- Parameters: :invoice_id.
-- Index: SEARCH invoices USING INDEX sqlite_autoindex_invoices_1 (invoice_id=?)
SELECT sequence, customer_id, total_amount_cents, paid_cents, currency, status
FROM invoices
WHERE invoice_id = :invoice_id
