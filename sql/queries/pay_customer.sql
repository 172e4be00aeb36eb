-- Purpose: adds what was paid to the kept totals of a customer. A sum that leaves 64 bits becomes REAL,
--   which the STRICT table refuses.
-- Parameters: :paid_cents, :credit_note_paid_cents, :customer_id, :currency.
-- Index: SEARCH customer_totals USING PRIMARY KEY (customer_id=? AND currency=?)
UPDATE customer_totals
SET paid_cents = paid_cents + :paid_cents,
    credit_note_paid_cents = credit_note_paid_cents + :credit_note_paid_cents
WHERE customer_id = :customer_id AND currency = :currency
