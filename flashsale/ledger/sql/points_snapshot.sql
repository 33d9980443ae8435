-- What is told about one snapshot.
SELECT id, cutoff, cutoff_offset_s, members FROM snapshots WHERE id = $1
