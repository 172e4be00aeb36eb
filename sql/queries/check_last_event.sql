-- Purpose: the highest `event_sequence` that an event has; 0 when there is none.
-- Parameters: none.
-- Index: SEARCH reconcile_events
SELECT coalesce(max(event_sequence), 0) FROM reconcile_events
