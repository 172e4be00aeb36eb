-- Purpose: keeps the highest `sequence` that was given.
-- Parameters: :last_sequence.
-- Index: SEARCH ledger USING INTEGER PRIMARY KEY (rowid=?)
UPDATE ledger SET last_sequence = :last_sequence WHERE id = 1
