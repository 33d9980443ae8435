-- A new drop, born at its first epoch; nothing when the id is taken.
INSERT INTO drops (id, title, price_amount, currency, list_price_amount, list_price_currency, per_member, hold_seconds,
    rebuy_after_return, stripes, epoch, created_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, born.epoch, to_timestamp(born.epoch / 1000.0)
FROM (SELECT next_epoch(0) AS epoch) AS born
ON CONFLICT DO NOTHING
RETURNING epoch
