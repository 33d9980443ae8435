-- One part of a computed list, the first one after part $3 (from -1).
SELECT part, fields
FROM eligible_chunks
WHERE snapshot_id = $1 AND at_least = $2 AND part > $3
ORDER BY part
LIMIT 1
