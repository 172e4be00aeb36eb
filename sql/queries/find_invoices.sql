-- Purpose: what events need to know of their invoices, with the number of each in the array.
-- Parameters: :invoice_ids, an array.
-- Index: SEARCH i USING INDEX sqlite_autoindex_invoices_1 (invoice_id=?)
SELECT a.rowid, i.sequence, i.total_amount_cents, i.paid_cents, i.status, i.last_event_sequence, i.customer_id,
       i.currency
FROM rarray(:invoice_ids) AS a
CROSS JOIN invoices AS i ON i.invoice_id = a.value
