-- Names the snapshot numbered $2.
INSERT INTO snapshots (id, no, cutoff, cutoff_offset_s, members, created_by)
VALUES ($1, $2, $3, $4, $5, $6)
