-- An allocation, locked; the drop's row is locked already.
SELECT id, quantity, taken, opens_at, closes_at, channel FROM allocations WHERE drop_id = $1 AND id = $2
FOR NO KEY UPDATE
