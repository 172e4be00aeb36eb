-- Purpose: which state of the database a file has.
-- Parameters: none.
-- Index: SCAN file_state
SELECT mark, state FROM file_state;
