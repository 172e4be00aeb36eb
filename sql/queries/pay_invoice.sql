-- Purpose: sets what is paid of an invoice, and its newest event.
-- Parameters: :paid_cents, :status, :last_event_sequence, :sequence.
-- Index: SEARCH invoices USING INTEGER PRIMARY KEY (rowid=?)
UPDATE invoices
SET paid_cents = :paid_cents, status = :status, last_event_sequence = :last_event_sequence
WHERE sequence = :sequence
