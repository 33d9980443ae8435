-- The number of a new batch.
SELECT nextval(pg_get_serial_sequence('fcode_batches', 'id'))::integer
