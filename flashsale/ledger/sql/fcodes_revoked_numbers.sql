-- The single codes of a drop that were revoked.
SELECT v.batch_id::bigint << 22 | v.serial AS number FROM fcode_revoked v
JOIN fcode_batches b ON b.id = v.batch_id WHERE b.drop_id = $1
