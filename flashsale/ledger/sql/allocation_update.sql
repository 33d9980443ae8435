-- Change an allocation that this transaction has locked.
UPDATE allocations SET quantity = $3, opens_at = $4, closes_at = $5, channel = $6 WHERE drop_id = $1 AND id = $2
