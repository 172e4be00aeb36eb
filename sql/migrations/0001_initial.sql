-- The first schema. Tables and columns bear the names of the messages and
-- fields of proto/billing/v1/report.proto. A Timestamp is two columns:
-- NAME (seconds since 1970-01-01T00:00:00Z, for `datetime(NAME, 'unixepoch')`)
-- and NAME_nanos (0 to 999,999,999). Enums are stored by their numbers.

CREATE TABLE invoices (
    sequence           INTEGER PRIMARY KEY,
    invoice_id         TEXT    NOT NULL UNIQUE,
    customer_id        TEXT    NOT NULL,
    total_amount_cents INTEGER NOT NULL CHECK (total_amount_cents >= 0),
    currency           TEXT    NOT NULL CHECK (length(currency) = 3),
    status             INTEGER NOT NULL CHECK (status BETWEEN 1 AND 5),
    paid_cents         INTEGER NOT NULL CHECK (paid_cents >= 0),
    issued_at          INTEGER NOT NULL,
    issued_at_nanos    INTEGER NOT NULL CHECK (issued_at_nanos BETWEEN 0 AND 999999999),
    memo               TEXT    NOT NULL
) STRICT;

-- An index ends in the rowid, so each customer's invoices are in the order of
-- `sequence` here.
CREATE INDEX invoices_by_customer ON invoices (customer_id);
CREATE INDEX invoices_by_issued_at ON invoices (issued_at, issued_at_nanos);

-- What GetSummary answers from, kept by the triggers below in the transaction
-- of the rows. A sum that leaves 64 bits becomes REAL in SQLite, which a
-- STRICT column of INTEGER refuses: the statement fails, nothing wraps.
CREATE TABLE currency_totals (
    currency      TEXT    PRIMARY KEY,
    invoice_count INTEGER NOT NULL,
    total_cents   INTEGER NOT NULL,
    paid_cents    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE customer_totals (
    customer_id   TEXT    NOT NULL,
    currency      TEXT    NOT NULL,
    invoice_count INTEGER NOT NULL,
    total_cents   INTEGER NOT NULL,
    paid_cents    INTEGER NOT NULL,
    PRIMARY KEY (customer_id, currency)
) STRICT, WITHOUT ROWID;

-- They are for every program that writes but the server, which does the same in
-- fewer statements with the triggers switched off (src/store/sqlite/totals.rs).
CREATE TRIGGER invoices_inserted AFTER INSERT ON invoices BEGIN
    INSERT INTO currency_totals (currency, invoice_count, total_cents, paid_cents)
    VALUES (new.currency, 1, new.total_amount_cents, new.paid_cents)
    ON CONFLICT (currency) DO UPDATE SET
        invoice_count = invoice_count + 1,
        total_cents   = total_cents + excluded.total_cents,
        paid_cents    = paid_cents + excluded.paid_cents;
    INSERT INTO customer_totals (customer_id, currency, invoice_count, total_cents, paid_cents)
    VALUES (new.customer_id, new.currency, 1, new.total_amount_cents, new.paid_cents)
    ON CONFLICT (customer_id, currency) DO UPDATE SET
        invoice_count = invoice_count + 1,
        total_cents   = total_cents + excluded.total_cents,
        paid_cents    = paid_cents + excluded.paid_cents;
END;

-- Payments, the statement that is run most.
CREATE TRIGGER invoices_paid AFTER UPDATE OF paid_cents ON invoices BEGIN
    UPDATE currency_totals
    SET paid_cents = paid_cents - old.paid_cents + new.paid_cents
    WHERE currency = new.currency;
    UPDATE customer_totals
    SET paid_cents = paid_cents - old.paid_cents + new.paid_cents
    WHERE customer_id = new.customer_id AND currency = new.currency;
END;

-- The next two serve an operator at the sqlite3 shell; the server itself never
-- deletes an invoice, and changes nothing of it but status and paid_cents.
CREATE TRIGGER invoices_deleted AFTER DELETE ON invoices BEGIN
    UPDATE currency_totals
    SET invoice_count = invoice_count - 1,
        total_cents   = total_cents - old.total_amount_cents,
        paid_cents    = paid_cents - old.paid_cents
    WHERE currency = old.currency;
    DELETE FROM currency_totals WHERE currency = old.currency AND invoice_count = 0;
    UPDATE customer_totals
    SET invoice_count = invoice_count - 1,
        total_cents   = total_cents - old.total_amount_cents,
        paid_cents    = paid_cents - old.paid_cents
    WHERE customer_id = old.customer_id AND currency = old.currency;
    DELETE FROM customer_totals
    WHERE customer_id = old.customer_id AND currency = old.currency AND invoice_count = 0;
END;

CREATE TRIGGER invoices_are_fixed
BEFORE UPDATE OF sequence, invoice_id, customer_id, total_amount_cents, currency ON invoices
WHEN old.sequence <> new.sequence
  OR old.invoice_id <> new.invoice_id
  OR old.customer_id <> new.customer_id
  OR old.total_amount_cents <> new.total_amount_cents
  OR old.currency <> new.currency
BEGIN
    SELECT RAISE(ABORT, 'an invoice keeps its ids, its amount and its currency: delete it and insert another');
END;

-- Every event that Reconcile took, with its first outcome. `invoice_status`
-- and `outstanding_cents` are those of the acknowledgement. A rejected event
-- keeps only its event_id, outcome and message: its fields are not fit to keep.
CREATE TABLE reconcile_events (
    event_id          TEXT    PRIMARY KEY,
    invoice_id        TEXT    NOT NULL,
    amount_cents      INTEGER NOT NULL,
    currency          TEXT    NOT NULL,
    received_at       INTEGER NOT NULL,
    received_at_nanos INTEGER NOT NULL,
    reference         TEXT    NOT NULL,
    outcome           INTEGER NOT NULL CHECK (outcome BETWEEN 1 AND 7),
    invoice_status    INTEGER NOT NULL CHECK (invoice_status BETWEEN 0 AND 5),
    outstanding_cents INTEGER NOT NULL,
    message           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Uploads that closed themselves with a batch_id, for the retry that asks
-- again. Their invoices are numbered first_sequence to last_sequence.
CREATE TABLE bulk_commits (
    batch_id       TEXT    PRIMARY KEY,
    count          INTEGER NOT NULL CHECK (count >= 0),
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
