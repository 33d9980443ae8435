-- A new allocation at the end of the list; nothing when the name is taken.
INSERT INTO allocations (drop_id, id, position, quantity, opens_at, closes_at, access, channel)
SELECT $1, $2, coalesce(max(a.position), 0) + 1, $3, $4, $5, $6::jsonb, $7 FROM allocations a WHERE a.drop_id = $1
ON CONFLICT DO NOTHING
RETURNING position
