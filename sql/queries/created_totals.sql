-- Purpose: the totals of the invoices of one upload as they were created, by currency.
-- Parameters: :first_sequence, :last_sequence (included).
-- Index: SEARCH invoices USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)
SELECT currency, count(*), sum(total_amount_cents), 0
FROM invoices
WHERE sequence BETWEEN :first_sequence AND :last_sequence
GROUP BY currency
ORDER BY currency
