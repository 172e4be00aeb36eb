-- Purpose: creates an invoice. A taken invoice_id is a violation of the UNIQUE constraint.
-- Parameters: :sequence, :invoice_id, :customer_id, :total_amount_cents, :currency, :status,
--   :issued_at, :issued_at_nanos, :memo.
INSERT INTO invoices (sequence, invoice_id, customer_id, total_amount_cents, currency, status,
                      paid_cents, issued_at, issued_at_nanos, memo)
VALUES (:sequence, :invoice_id, :customer_id, :total_amount_cents, :currency, :status,
        0, :issued_at, :issued_at_nanos, :memo)
