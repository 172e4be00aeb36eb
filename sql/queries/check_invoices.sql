-- Purpose: how many invoices there are, and the highest `sequence` of them; 0 when there is none.
-- Parameters: none. It reads every invoice: for `check` alone, of a database of any version.
-- Index: SCAN invoices
SELECT count(*), coalesce(max(sequence), 0) FROM invoices
