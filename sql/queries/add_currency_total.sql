-- Purpose: adds to the kept totals of a currency. A sum that leaves 64 bits becomes REAL, which the STRICT
--   table refuses.
-- Parameters: the columns, with what is to be added.
INSERT INTO currency_totals (currency, invoice_count, total_cents, paid_cents)
VALUES (:currency, :invoice_count, :total_cents, :paid_cents)
ON CONFLICT (currency) DO UPDATE SET
    invoice_count = invoice_count + excluded.invoice_count,
    total_cents   = total_cents + excluded.total_cents,
    paid_cents    = paid_cents + excluded.paid_cents
