-- Indexes, closes and attaches the filled table of snapshot $1; a row names the first member that is in it twice.
SELECT member, line, first_line FROM seal_snapshot_points($1)
