-- Honour these codes of a batch no more; how many were honoured until now.
INSERT INTO fcode_revoked (batch_id, serial)
SELECT $1, s FROM unnest($2::integer[]) AS s ON CONFLICT DO NOTHING
