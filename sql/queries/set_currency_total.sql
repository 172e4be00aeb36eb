-- Purpose: sets the kept totals of a currency.
-- Parameters: the columns.
INSERT INTO currency_totals (currency, invoice_count, total_cents, paid_cents)
VALUES (:currency, :invoice_count, :total_cents, :paid_cents)
ON CONFLICT (currency) DO UPDATE SET
    invoice_count = excluded.invoice_count,
    total_cents   = excluded.total_cents,
    paid_cents    = excluded.paid_cents
