-- An order, locked.
SELECT id, state FROM orders WHERE id = $1 FOR NO KEY UPDATE
