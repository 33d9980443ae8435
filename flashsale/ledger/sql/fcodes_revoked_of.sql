-- Single codes of a batch that were revoked, by serial, after $2.
SELECT serial FROM fcode_revoked WHERE batch_id = $1 AND serial > $2 ORDER BY serial LIMIT $3
