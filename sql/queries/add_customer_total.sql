-- Purpose: adds to the kept totals of a customer. A sum that leaves 64 bits becomes REAL, which the
--   STRICT table refuses.
-- Parameters: the columns, with what is to be added.
INSERT INTO customer_totals (customer_id, currency, invoice_count, total_cents, paid_cents, credit_note_count,
                             credit_note_cents, void_count, void_cents, credit_note_paid_cents)
VALUES (:customer_id, :currency, :invoice_count, :total_cents, :paid_cents, :credit_note_count,
        :credit_note_cents, :void_count, :void_cents, :credit_note_paid_cents)
ON CONFLICT (customer_id, currency) DO UPDATE SET
    invoice_count          = invoice_count + excluded.invoice_count,
    total_cents            = total_cents + excluded.total_cents,
    paid_cents             = paid_cents + excluded.paid_cents,
    credit_note_count      = credit_note_count + excluded.credit_note_count,
    credit_note_cents      = credit_note_cents + excluded.credit_note_cents,
    void_count             = void_count + excluded.void_count,
    void_cents             = void_cents + excluded.void_cents,
    credit_note_paid_cents = credit_note_paid_cents + excluded.credit_note_paid_cents
