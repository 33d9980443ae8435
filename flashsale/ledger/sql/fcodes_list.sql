-- Batches, newest first; before $1.
SELECT * FROM fcode_batches WHERE $1::integer IS NULL OR id < $1 ORDER BY id DESC LIMIT $2
