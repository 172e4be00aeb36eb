-- Purpose: the kept totals of a currency, before they are added to.
-- Parameters: :currency.
-- Index: SEARCH currency_totals USING PRIMARY KEY (currency=?)
SELECT invoice_count, total_cents, paid_cents, credit_note_count, credit_note_cents, void_count, void_cents,
       credit_note_paid_cents
FROM currency_totals
WHERE currency = :currency
