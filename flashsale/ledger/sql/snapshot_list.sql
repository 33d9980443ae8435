-- Points snapshots by name, after $1.
SELECT id, cutoff, cutoff_offset_s, members, created_at, created_by FROM snapshots
WHERE $1::text IS NULL OR id > $1 ORDER BY id LIMIT $2
