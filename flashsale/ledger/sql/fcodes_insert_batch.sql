-- A new batch, under the number it was given.
INSERT INTO fcode_batches (id, drop_id, allocation_id, count, bound, key_version, key_fingerprint, expires_at, note)
OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING *
