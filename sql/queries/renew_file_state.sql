-- Purpose: numbers the state of the database anew, at the beginning and at the end of a log.
-- Parameters: none.
-- Index: SCAN file_state
UPDATE file_state SET base = state, state = randomblob(16) RETURNING state;
