-- Purpose: sets what is paid of an invoice.
-- Parameters: :paid_cents, :status, :sequence.
-- Index: SEARCH invoices USING INTEGER PRIMARY KEY (rowid=?)
UPDATE invoices
SET paid_cents = :paid_cents, status = :status
WHERE sequence = :sequence
