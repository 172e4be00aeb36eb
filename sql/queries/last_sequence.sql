-- Purpose: the highest `sequence`; 0 when there is no invoice.
-- Parameters: none.
-- Index: SEARCH invoices
SELECT coalesce(max(sequence), 0) FROM invoices
