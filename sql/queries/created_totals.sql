-- Purpose: what is to be summed of the invoices of one upload as they were created, a row each, as in
--   summary_by_date.
-- Parameters: :first_sequence, :last_sequence (included).
-- Index: SEARCH invoices USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)
SELECT currency, total_amount_cents, 0, 0
FROM invoices
WHERE sequence BETWEEN :first_sequence AND :last_sequence
