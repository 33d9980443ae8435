-- One batch.
SELECT * FROM fcode_batches WHERE id = $1
