-- What was given once is not given again, and what other programs write cannot
-- make the totals drift. A file of the first schema is brought here as it is,
-- with its invoices untouched.

-- One row: the highest `sequence` that was ever given, also where its invoice
-- was deleted since. (An upload that is remembered still knows its own.)
CREATE TABLE ledger (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    last_sequence INTEGER NOT NULL CHECK (last_sequence >= 0)
) STRICT;
INSERT INTO ledger (id, last_sequence)
SELECT 1, max(
    (SELECT coalesce(max(sequence), 0) FROM invoices),
    (SELECT coalesce(max(last_sequence), 0) FROM bulk_commits)
);

-- Only an event that was applied is remembered: one that was refused may come
-- again, corrected or after its invoice.
DELETE FROM reconcile_events WHERE outcome NOT IN (1, 2, 3);

-- SHA-256 of the upload's invoices as the client sent them, in their order.
-- NULL for an upload of before: its count alone tells that it is the same.
ALTER TABLE bulk_commits ADD COLUMN digest BLOB;

-- The triggers are for every program that writes but the server, as those of
-- the first schema.

-- REPLACE deletes without a trigger. (A sequence that is not given is -1 here.)
CREATE TRIGGER invoices_are_not_replaced BEFORE INSERT ON invoices
WHEN EXISTS (SELECT 1 FROM invoices WHERE sequence = new.sequence)
  OR EXISTS (SELECT 1 FROM invoices WHERE invoice_id = new.invoice_id)
BEGIN
    SELECT RAISE(ABORT, 'the sequence or the invoice_id is taken: an invoice is deleted before another takes its id');
END;

CREATE TRIGGER invoices_are_numbered AFTER INSERT ON invoices BEGIN
    SELECT RAISE(ABORT, 'a sequence is given once: insert with sequence = (SELECT last_sequence + 1 FROM ledger)')
    FROM ledger WHERE new.sequence <= last_sequence;
    UPDATE ledger SET last_sequence = new.sequence;
END;

-- Of every update: `UPDATE OF sequence` does not see `SET rowid = ...`.
DROP TRIGGER invoices_are_fixed;
CREATE TRIGGER invoices_are_fixed BEFORE UPDATE ON invoices
WHEN old.sequence <> new.sequence
  OR old.invoice_id <> new.invoice_id
  OR old.customer_id <> new.customer_id
  OR old.total_amount_cents <> new.total_amount_cents
  OR old.currency <> new.currency
BEGIN
    SELECT RAISE(ABORT, 'an invoice keeps its ids, its amount and its currency: delete it and insert another');
END;

-- Which state of the database a write-ahead log continues, so that a log beside a file that it does not
-- continue is refused (src/store/sqlite/wal_file.rs). One row: `mark` is always the same, and is looked for in the pages
-- of the log; `state` is numbered anew at the beginning and at the end of each log, `base` is the one before.
-- A file without this table has the state of 16 zero bytes.
CREATE TABLE file_state (
    mark  TEXT NOT NULL,
    state BLOB NOT NULL,
    base  BLOB NOT NULL
) STRICT;

INSERT INTO file_state (mark, state, base) VALUES ('billstream-state', randomblob(16), zeroblob(16));
