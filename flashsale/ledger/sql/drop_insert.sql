-- A new drop; nothing when the id is taken.
INSERT INTO drops (id, title, price_amount, currency, list_price_amount, list_price_currency, per_member, hold_seconds,
    rebuy_after_return, stripes, epoch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, next_epoch(0))
ON CONFLICT DO NOTHING
RETURNING epoch
