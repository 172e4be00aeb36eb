-- Credit notes, refunds and voids, and a ledger that can be read. The rows of `invoices` stay where they are;
-- `reconcile_events` is written anew.

DROP TRIGGER invoices_inserted;
DROP TRIGGER invoices_paid;
DROP TRIGGER invoices_deleted;
DROP TRIGGER invoices_are_not_replaced;
DROP TRIGGER invoices_are_numbered;
DROP TRIGGER invoices_are_fixed;

-- An amount may be under 0, and what is paid has its sign. SQLite has no statement for that which leaves the rows
-- where they are; this is the way its documentation gives for constraints
-- (https://www.sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes"). A text that is not ours is left
-- as it is, and then the first credit note is refused by it.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(replace(sql,
    ' CHECK (total_amount_cents >= 0)', ''),
    'CHECK (paid_cents >= 0)', 'CHECK (paid_cents = 0 OR (paid_cents > 0) = (total_amount_cents >= 0))')
WHERE type = 'table' AND name = 'invoices';
PRAGMA writable_schema = RESET;

-- The newest event of each invoice; 0 where there is none. Each event has the one before it, so that the history of an
-- invoice needs no index, which every payment would have to write.
ALTER TABLE invoices ADD COLUMN last_event_sequence INTEGER NOT NULL DEFAULT 0;

-- The highest `event_sequence` that was ever given.
ALTER TABLE ledger ADD COLUMN last_event_sequence INTEGER NOT NULL DEFAULT 0;

-- Every event that was applied, in the order of application. `invoice_status` and `outstanding_cents` are those of the
-- acknowledgement. A new event is at the end of the table, and in its place in the index alone. (By the old rules of
-- RENAME a view of an operator goes on naming `reconcile_events`, by the new ones it would keep the old table.)
PRAGMA legacy_alter_table = ON;
ALTER TABLE reconcile_events RENAME TO reconcile_events_of_before;
PRAGMA legacy_alter_table = OFF;
CREATE TABLE reconcile_events (
    event_sequence          INTEGER PRIMARY KEY,
    -- The event before it of the same invoice; 0: none.
    previous_event_sequence INTEGER NOT NULL,
    event_id                TEXT    NOT NULL,
    invoice_id              TEXT    NOT NULL,
    kind                    INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 3),
    amount_cents            INTEGER NOT NULL CHECK (amount_cents >= 0),
    currency                TEXT    NOT NULL,
    received_at             INTEGER NOT NULL,
    received_at_nanos       INTEGER NOT NULL,
    reference               TEXT    NOT NULL,
    outcome                 INTEGER NOT NULL CHECK (outcome IN (1, 2, 3, 9)),
    invoice_status          INTEGER NOT NULL CHECK (invoice_status BETWEEN 1 AND 5),
    outstanding_cents       INTEGER NOT NULL
) STRICT;

-- Of what was applied until now, payments alone, the order is not kept but for that of one invoice, whose outstanding
-- falls from each to the next.
INSERT INTO reconcile_events
SELECT row_number() OVER the_order,
       CASE WHEN lag(e.invoice_id) OVER the_order = e.invoice_id THEN row_number() OVER the_order - 1 ELSE 0 END,
       e.event_id, e.invoice_id, 1, e.amount_cents, e.currency, e.received_at, e.received_at_nanos, e.reference,
       e.outcome, e.invoice_status, e.outstanding_cents
FROM reconcile_events_of_before AS e LEFT JOIN invoices AS i ON i.invoice_id = e.invoice_id
WINDOW the_order AS (ORDER BY i.sequence, e.invoice_id, e.outstanding_cents DESC, e.event_id)
ORDER BY 1;
DROP TABLE reconcile_events_of_before;
CREATE UNIQUE INDEX reconcile_events_by_event_id ON reconcile_events (event_id);

UPDATE invoices SET last_event_sequence = last.event_sequence
FROM (SELECT invoice_id, max(event_sequence) AS event_sequence FROM reconcile_events GROUP BY invoice_id) AS last
WHERE last.invoice_id = invoices.invoice_id;
UPDATE ledger SET last_event_sequence = (SELECT coalesce(max(event_sequence), 0) FROM reconcile_events);

-- How much of the totals are credit notes, and how much is void. The invoices fit into 64 bits by themselves, and so do the
-- credit notes, all that can be owed by customers and all that can be owed to them: then the sum of any of them does,
-- those of a customer among them, and the server need not read the row of each customer to know it.
ALTER TABLE currency_totals ADD COLUMN credit_note_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE currency_totals ADD COLUMN credit_note_cents INTEGER NOT NULL DEFAULT 0;
ALTER TABLE currency_totals ADD COLUMN void_count        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE currency_totals ADD COLUMN void_cents        INTEGER NOT NULL DEFAULT 0;
-- The part of paid_cents that is of credit notes: 0 or less.
ALTER TABLE currency_totals ADD COLUMN credit_note_paid_cents INTEGER NOT NULL DEFAULT 0
    CHECK (typeof(total_cents - credit_note_cents - credit_note_paid_cents) = 'integer')
    CHECK (typeof(credit_note_cents - (paid_cents - credit_note_paid_cents)) = 'integer');
ALTER TABLE customer_totals ADD COLUMN credit_note_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE customer_totals ADD COLUMN credit_note_cents INTEGER NOT NULL DEFAULT 0;
ALTER TABLE customer_totals ADD COLUMN void_count        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE customer_totals ADD COLUMN void_cents        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE customer_totals ADD COLUMN credit_note_paid_cents INTEGER NOT NULL DEFAULT 0;

UPDATE currency_totals SET void_count = v.count, void_cents = v.cents
FROM (SELECT currency, count(*) AS count, sum(total_amount_cents) AS cents
      FROM invoices WHERE status = 5 GROUP BY currency) AS v
WHERE v.currency = currency_totals.currency;
UPDATE customer_totals SET void_count = v.count, void_cents = v.cents
FROM (SELECT customer_id, currency, count(*) AS count, sum(total_amount_cents) AS cents
      FROM invoices NOT INDEXED WHERE status = 5 GROUP BY customer_id, currency) AS v
WHERE v.customer_id = customer_totals.customer_id AND v.currency = customer_totals.currency;

-- The triggers again, for every program that writes but the server.

CREATE TRIGGER invoices_inserted AFTER INSERT ON invoices BEGIN
    INSERT INTO currency_totals (currency, invoice_count, total_cents, paid_cents,
                                 credit_note_count, credit_note_cents, void_count, void_cents,
                                 credit_note_paid_cents)
    VALUES (new.currency, 1, new.total_amount_cents, new.paid_cents,
            new.total_amount_cents < 0, min(new.total_amount_cents, 0),
            new.status = 5, iif(new.status = 5, new.total_amount_cents, 0),
            iif(new.total_amount_cents < 0, new.paid_cents, 0))
    ON CONFLICT (currency) DO UPDATE SET
        invoice_count     = invoice_count + 1,
        total_cents       = total_cents + excluded.total_cents,
        paid_cents        = paid_cents + excluded.paid_cents,
        credit_note_count = credit_note_count + excluded.credit_note_count,
        credit_note_cents = credit_note_cents + excluded.credit_note_cents,
        void_count        = void_count + excluded.void_count,
        void_cents        = void_cents + excluded.void_cents,
        credit_note_paid_cents = credit_note_paid_cents + excluded.credit_note_paid_cents;
    INSERT INTO customer_totals (customer_id, currency, invoice_count, total_cents, paid_cents,
                                 credit_note_count, credit_note_cents, void_count, void_cents,
                                 credit_note_paid_cents)
    VALUES (new.customer_id, new.currency, 1, new.total_amount_cents, new.paid_cents,
            new.total_amount_cents < 0, min(new.total_amount_cents, 0),
            new.status = 5, iif(new.status = 5, new.total_amount_cents, 0),
            iif(new.total_amount_cents < 0, new.paid_cents, 0))
    ON CONFLICT (customer_id, currency) DO UPDATE SET
        invoice_count     = invoice_count + 1,
        total_cents       = total_cents + excluded.total_cents,
        paid_cents        = paid_cents + excluded.paid_cents,
        credit_note_count = credit_note_count + excluded.credit_note_count,
        credit_note_cents = credit_note_cents + excluded.credit_note_cents,
        void_count        = void_count + excluded.void_count,
        void_cents        = void_cents + excluded.void_cents,
        credit_note_paid_cents = credit_note_paid_cents + excluded.credit_note_paid_cents;
END;

-- Payments, refunds and voids. The differences come first: a sum that left 64 bits on the way would come back inexact.
CREATE TRIGGER invoices_paid AFTER UPDATE OF paid_cents, status ON invoices BEGIN
    UPDATE currency_totals
    SET paid_cents = paid_cents + (new.paid_cents - old.paid_cents),
        void_count = void_count + (new.status = 5) - (old.status = 5),
        void_cents = void_cents + ((new.status = 5) - (old.status = 5)) * new.total_amount_cents,
        credit_note_paid_cents = credit_note_paid_cents
                                 + iif(new.total_amount_cents < 0, new.paid_cents - old.paid_cents, 0)
    WHERE currency = new.currency;
    UPDATE customer_totals
    SET paid_cents = paid_cents + (new.paid_cents - old.paid_cents),
        void_count = void_count + (new.status = 5) - (old.status = 5),
        void_cents = void_cents + ((new.status = 5) - (old.status = 5)) * new.total_amount_cents,
        credit_note_paid_cents = credit_note_paid_cents
                                 + iif(new.total_amount_cents < 0, new.paid_cents - old.paid_cents, 0)
    WHERE customer_id = new.customer_id AND currency = new.currency;
END;

CREATE TRIGGER invoices_deleted AFTER DELETE ON invoices BEGIN
    UPDATE currency_totals
    SET invoice_count     = invoice_count - 1,
        total_cents       = total_cents - old.total_amount_cents,
        paid_cents        = paid_cents - old.paid_cents,
        credit_note_count = credit_note_count - (old.total_amount_cents < 0),
        credit_note_cents = credit_note_cents - min(old.total_amount_cents, 0),
        void_count        = void_count - (old.status = 5),
        void_cents        = void_cents - iif(old.status = 5, old.total_amount_cents, 0),
        credit_note_paid_cents = credit_note_paid_cents - iif(old.total_amount_cents < 0, old.paid_cents, 0)
    WHERE currency = old.currency;
    DELETE FROM currency_totals WHERE currency = old.currency AND invoice_count = 0;
    UPDATE customer_totals
    SET invoice_count     = invoice_count - 1,
        total_cents       = total_cents - old.total_amount_cents,
        paid_cents        = paid_cents - old.paid_cents,
        credit_note_count = credit_note_count - (old.total_amount_cents < 0),
        credit_note_cents = credit_note_cents - min(old.total_amount_cents, 0),
        void_count        = void_count - (old.status = 5),
        void_cents        = void_cents - iif(old.status = 5, old.total_amount_cents, 0),
        credit_note_paid_cents = credit_note_paid_cents - iif(old.total_amount_cents < 0, old.paid_cents, 0)
    WHERE customer_id = old.customer_id AND currency = old.currency;
    DELETE FROM customer_totals
    WHERE customer_id = old.customer_id AND currency = old.currency AND invoice_count = 0;
END;

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

CREATE TRIGGER invoices_are_fixed BEFORE UPDATE ON invoices
WHEN old.sequence <> new.sequence
  OR old.invoice_id <> new.invoice_id
  OR old.customer_id <> new.customer_id
  OR old.total_amount_cents <> new.total_amount_cents
  OR old.currency <> new.currency
BEGIN
    SELECT RAISE(ABORT, 'an invoice keeps its ids, its amount and its currency: delete it and insert another');
END;
