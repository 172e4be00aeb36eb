-- Purpose: remembers an upload by its batch_id.
-- Parameters: the columns.
INSERT INTO bulk_commits (batch_id, count, first_sequence, last_sequence, digest)
VALUES (:batch_id, :count, :first_sequence, :last_sequence, :digest)
