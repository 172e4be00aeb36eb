-- Purpose: the highest `event_sequence` that was ever given; 0 before the first.
-- Parameters: none.
-- Index: SEARCH ledger USING INTEGER PRIMARY KEY (rowid=?)
SELECT last_event_sequence FROM ledger WHERE id = 1
