-- Purpose: keeps the totals of a currency.
-- Parameters: the columns.
INSERT INTO currency_totals (currency, invoice_count, total_cents, paid_cents, credit_note_count, credit_note_cents,
                             void_count, void_cents, credit_note_paid_cents)
VALUES (:currency, :invoice_count, :total_cents, :paid_cents, :credit_note_count, :credit_note_cents,
        :void_count, :void_cents, :credit_note_paid_cents)
ON CONFLICT (currency) DO UPDATE SET
    invoice_count          = excluded.invoice_count,
    total_cents            = excluded.total_cents,
    paid_cents             = excluded.paid_cents,
    credit_note_count      = excluded.credit_note_count,
    credit_note_cents      = excluded.credit_note_cents,
    void_count             = excluded.void_count,
    void_cents             = excluded.void_cents,
    credit_note_paid_cents = excluded.credit_note_paid_cents
