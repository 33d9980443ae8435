-- Honour no code of this batch any more.
UPDATE fcode_batches SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL
