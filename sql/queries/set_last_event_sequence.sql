-- Purpose: keeps the highest `event_sequence` that was given.
-- Parameters: :last_event_sequence.
-- Index: SEARCH ledger USING INTEGER PRIMARY KEY (rowid=?)
UPDATE ledger SET last_event_sequence = :last_event_sequence WHERE id = 1
