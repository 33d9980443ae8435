-- The batches of a drop, by number.
SELECT * FROM fcode_batches WHERE drop_id = $1 ORDER BY id
