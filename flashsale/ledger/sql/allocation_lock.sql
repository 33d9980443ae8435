-- An allocation, locked; the drop's row is locked already. `alive`: its codes that may still be spent.
SELECT id, quantity, taken, opens_at, closes_at, channel, access ->> 'kind' AS kind,
    CASE WHEN access ->> 'kind' = 'fcode' THEN fcodes_alive(drop_id, id) ELSE 0 END AS alive
FROM allocations WHERE drop_id = $1 AND id = $2
FOR NO KEY UPDATE
