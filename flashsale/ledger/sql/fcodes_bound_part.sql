-- Whom codes of a batch belong to, by serial, after $2.
SELECT serial, member, note FROM fcode_bound WHERE batch_id = $1 AND serial > $2 ORDER BY serial LIMIT $3
