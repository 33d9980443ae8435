-- How many F-codes of each of a drop's allocations may still be spent.
SELECT id, fcodes_alive(drop_id, id) AS alive FROM allocations WHERE drop_id = $1 AND access ->> 'kind' = 'fcode'
