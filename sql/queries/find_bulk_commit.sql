-- Purpose: what an earlier upload with this batch_id created.
-- Parameters: :batch_id.
-- Index: SEARCH bulk_commits USING PRIMARY KEY (batch_id=?)
SELECT count, first_sequence, last_sequence, digest
FROM bulk_commits
WHERE batch_id = :batch_id
